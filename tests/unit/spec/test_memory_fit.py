"""What a network of the project's own cannot save is refused where it is asked for."""

from typing import Any

import pytest

from service.spec import parse_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.fit import check_fit
from tests.unit.spec.test_fit import vit

CNN = {"name": "small-cnn"}
SAVING = {"micro_batch": 8, "gradient_checkpointing": True}


def places(**parts: Any) -> set[str]:
    document = {"task": "image-classification", "dataset": {"source": "builtin:digits"}} | parts
    return {fault.pointer for fault in check_fit(parse_spec(document), BUILTIN_DATASETS["digits"].info, teachers={})}


@pytest.mark.parametrize("size", [1, 64, "auto"])
def test_batch_norm_reads_no_batch_in_parts(size: int | str) -> None:
    found = places(teacher={"architecture": vit()}, student={"architecture": CNN}, training={"micro_batch": size})
    assert found == {"/training/micro_batch"}


def test_each_training_is_told_of_its_own_network() -> None:
    found = places(
        teacher=[{"architecture": vit(), "training": SAVING}, {"architecture": CNN, "training": SAVING}],
        student={"architecture": vit()},
        training=SAVING,
    )
    assert found == {"/teacher/1/training/micro_batch", "/teacher/1/training/gradient_checkpointing"}


def test_an_assistant_is_trained_as_the_student_is() -> None:
    method = {"name": "teacher-assistant", "assistants": [vit(), CNN]}
    networks = {"teacher": {"architecture": vit()}, "student": {"architecture": vit()}}
    assert places(**networks, method=method, training=SAVING) == {"/training/micro_batch", "/training/gradient_checkpointing"}


def test_what_is_not_asked_for_is_not_refused() -> None:
    networks = {"teacher": {"architecture": CNN}, "student": {"architecture": CNN}}
    assert places(**networks, training={"gradient_checkpointing": "auto"}) == set()
    assert places(**networks, training={"gradient_checkpointing": False}) == set()
