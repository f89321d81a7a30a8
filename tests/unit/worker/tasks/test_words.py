"""What a model card says in each task's words; its programs run in tests/integration/test_usage.py."""

import ast
from typing import Any

import pytest

from service.api.examples import REPORT
from service.spec.report import Report
from service.spec.tasks import TaskName
from worker.tasks import TASKS
from worker.tasks.task import CardWords

ONE, SEVERAL = {"label": ["a", "b"]}, {"label": ["a", "b"], "year": None}


def words(task: TaskName, *, is_own: bool = False, agreement: float | None = 0.9, **data: Any) -> CardWords:
    report = Report.model_validate(REPORT | {"task": task, "agreement": agreement, "data": REPORT["data"] | data})
    return TASKS[task].words(report, is_own=is_own)


@pytest.mark.parametrize("shape", [[1, 8, 8], [16_000]])
@pytest.mark.parametrize(
    ("task", "targets"), [(task, each) for task in TASKS for each in (ONE, SEVERAL)[: TASKS[task].info.max_targets]]
)
def test_every_program_loads_a_student_by_its_tasks_own_class(task: TaskName, targets: dict[str, Any], shape: list[int]) -> None:
    program = words(task, targets=targets, input_shape=shape).usage
    ast.parse(program)
    assert f"{TASKS[task].info.auto_class}.from_pretrained(" in program


@pytest.mark.parametrize("task", ["image-classification", "audio-classification"])
def test_a_network_of_the_project_is_loaded_by_the_project(task: TaskName) -> None:
    program = words(task, is_own=True).usage
    ast.parse(program)
    assert 'load_network(Path("student"))' in program


def test_a_score_is_named_by_what_it_is_of() -> None:
    assert words("text-classification").score == "accuracy"
    assert words("causal-lm").score == "token_accuracy"
    assert "test tokens" in words("causal-lm").agreement
    assert "token by token" in words("causal-lm", agreement=None).agreement
    assert "alike" in words("sentence-embedding").agreement


def test_a_student_of_images_says_from_which_black_to_which_white_they_go() -> None:
    data = words("image-classification", input_shape=[1, 8, 8], pixel_range=[0, 16]).data
    assert "1×8×8 (channels, height, width), from 0 (black) to 16 (white)" in data
