"""Only ``service.jobs.transitions`` changes the state of a job; a new job gets its first one where it is stored."""

import ast
from collections.abc import Iterator

import pytest

from tests.unit.test_architecture import MODULES, imports

TRANSITIONS = "service.jobs.transitions"
STORES_A_JOB = "service.jobs.submission"
PACKAGE = [name for name in MODULES if name.startswith("service.jobs.")]


def assignments(tree: ast.Module, attribute: str) -> Iterator[str]:
    """The objects whose attribute of that name a module assigns, in whatever way an assignment is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store | ast.Del):
            yield ast.unparse(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr" and ast.unparse(node.args[1]) == repr(attribute):
            yield ast.unparse(node.args[0])


def calls_that_store(tree: ast.Module) -> Iterator[str]:
    """The calls that make a row of a job (``Job(…)``) or give a status to those that an UPDATE finds (``.values(status=…)``)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "Job" or (called.endswith(".values") and any(keyword.arg == "status" for keyword in node.keywords)):
                yield called.rpartition(".")[2]


def modules_with_sql(words: str) -> set[str]:
    """The modules that have a text with these words of SQL."""
    return {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and words in " ".join(node.value.lower().split())
    }


def test_one_module_alone_writes_the_status_of_a_job() -> None:
    written = {name: set(assignments(tree, "status")) for name, tree in MODULES.items()}
    assert {name: objects for name, objects in written.items() if objects - {"self"}} == {TRANSITIONS: {"job"}}
    stored = {name: list(calls_that_store(tree)) for name, tree in MODULES.items()}
    assert {name: calls for name, calls in stored.items() if calls} == {STORES_A_JOB: ["Job"]}


def test_no_sql_text_changes_a_job_and_one_stores_it() -> None:
    assert not {name for name in modules_with_sql("update jobs") if not name.startswith("migrations")}
    assert modules_with_sql("insert into jobs") == {STORES_A_JOB}


@pytest.mark.parametrize("attribute", ["attempt", "checks", "stop_requested"])
def test_one_module_alone_writes_what_a_transition_counts_or_requests(attribute: str) -> None:
    assert {name for name, tree in MODULES.items() if set(assignments(tree, attribute)) == {"job"}} == {TRANSITIONS}


def test_the_package_of_jobs_imports_in_one_direction() -> None:
    order = ["transitions", "dependencies", "submission", "requests", "attempts"]
    assert {name.rpartition(".")[2] for name in PACKAGE} == set(order)
    for name in PACKAGE:
        depth = order.index(name.rpartition(".")[2])
        inside = {
            part for target in imports(MODULES[name]) if target.startswith("service.jobs.") and (part := target.split(".")[2])
        }
        assert inside <= set(order[:depth]), f"{name} imports {inside - set(order[:depth])}"


def test_a_transition_checks_the_state_that_it_finds() -> None:
    functions = [node for node in MODULES[TRANSITIONS].body if isinstance(node, ast.FunctionDef)]
    changing = [
        function
        for function in functions
        if function.returns is not None and ast.unparse(function.returns) == "Outcome" and not function.name.startswith("_")
    ]
    assert len(changing) == 14
    unchecked = [
        function.name
        for function in changing
        if not {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
        & {"may_move", "may_happen", "_move"}
    ]
    assert not unchecked
