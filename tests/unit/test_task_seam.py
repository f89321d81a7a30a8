"""What tells tasks apart stands in their table and in their modules alone, so that another task is an entry and a module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.spec.tasks import TASKS
from tests.documents import spans

ROOT = Path(__file__).parents[2]
OF_TASKS = ("service/spec/tasks.py", "service/spec/task_fit.py", "worker/tasks/")
"""The table, the checks that belong to one entry of it, and the modules."""
MAY_NAME_TASKS = {
    "service/api/examples.py": "examples of specs, as users write them",
    "service/spec/builtin.py": "each builtin dataset is for a task",
    "service/spec/methods/embedding.py": "the message that refuses the method elsewhere",
    "worker/models/transformers_table.py": "writes the library's model types by task",
    "worker/preflight/rehearsal.py": "the small job that a process forked ahead rehearses",
}
FLAGS = {"are_tokens", "are_embeddings", "predicts_tokens", "is_embedded"}
"""What once told a task, of targets and of shapes."""


def sources(*packages: str) -> dict[str, ast.Module]:
    """Every module of these packages outside the tasks' own, by its path."""
    found = {}
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(OF_TASKS):
                found[name] = ast.parse(path.read_text(), filename=name)
    return found


SOURCES = sources("service", "worker", "benchmarks")


def told_apart() -> set[str]:
    """The classes of preprocessings, and of the networks that kinds of networks wrap."""
    names = set()
    for path, tree in SOURCES.items():
        for node in tree.body:
            if path.startswith(("worker/data/", "worker/models/")) and isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                is_network = "nn.Module" in bases and any(
                    isinstance(part, ast.Attribute) and part.attr == "model" for part in ast.walk(node)
                )
                if "Preprocessing" in bases or is_network:
                    names.add(node.name)
    return names


def class_checks(tree: ast.Module) -> Iterator[tuple[int, set[str]]]:
    """(line, names of classes) of every ``isinstance`` and every class pattern."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            yield node.lineno, {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.lineno, {node.cls.id}


def test_the_page_on_adding_a_task_names_all_that_a_task_may_say() -> None:
    tree = ast.parse((ROOT / "worker/tasks/task.py").read_text())
    (task,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Task")
    methods = {node.name for node in task.body if isinstance(node, ast.FunctionDef)}
    settings = {ast.unparse(node.target) for node in task.body if isinstance(node, ast.AnnAssign)} - {"name", "network"}
    told = spans("docs/tasks.md")
    assert not (methods | settings) - set(told)
    assert {"predict", "teacher_runs_each_step"} <= methods | settings


def test_the_classes_that_tell_a_task_are_found() -> None:
    assert told_apart() >= {
        "PixelPreprocessing",
        "ProcessorPixels",
        "SoundPreprocessing",
        "TextPreprocessing",
        "LanguagePreprocessing",
        "TransformersNetwork",
        "LanguageNetwork",
        "EmbeddingNetwork",
    }


def test_no_network_and_no_preprocessing_is_told_by_its_class() -> None:
    classes = told_apart()
    wrong = [
        f"{path}:{line}"
        for path, tree in SOURCES.items()
        if path.startswith("worker/")
        for line, names in class_checks(tree)
        if names & classes
    ]
    assert not wrong, "make it a method of the preprocessing, of the kind of networks or of the task"


def test_nothing_has_a_flag_for_a_task() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in FLAGS)
        or (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in FLAGS)
    ]
    assert not wrong


@pytest.mark.parametrize("task", TASKS)
def test_no_task_is_named_outside_the_tasks(task: str) -> None:
    named = {
        path
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if not path.startswith("benchmarks/") and isinstance(node, ast.Constant) and node.value == task
    }
    assert not named - MAY_NAME_TASKS.keys(), "ask the task's entry in service.spec.tasks, or call a method of worker.tasks"
