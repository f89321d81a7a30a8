"""A role is read from its text as it was written, and tells under which phase and part its training counts."""

import pytest

from worker.job.roles import CONTROL, STUDENT, Role

TEXTS = {
    Role("teacher"): "teacher",
    Role("teacher", 2): "teacher-2",
    Role("generation", 1): "generation-1",
    Role("assistant", 11): "assistant-11",
    STUDENT: "student",
    CONTROL: "control",
    Role("student", seed=7): "student@7",
    Role("control", seed=0): "control@0",
}


@pytest.mark.parametrize(("role", "text"), TEXTS.items(), ids=str)
def test_a_role_is_read_as_it_is_written(role: Role, text: str) -> None:
    assert str(role) == text
    assert Role.parse(text) == role


@pytest.mark.parametrize("text", ["", "peer", "student@", "student@x", "teacher-", "teacher-1 ", "students", "teacher:1"])
def test_another_text_is_no_role(text: str) -> None:
    with pytest.raises(ValueError, match="no role"):
        Role.parse(text)


def test_the_chain_counts_among_the_teachers_and_a_seed_replicate_among_the_repeats() -> None:
    assert [(role.phase, role.part) for role in TEXTS] == [
        *[("teacher", "teacher")] * 4,
        ("student", "student"),
        ("control", "control"),
        ("student", "repeats"),
        ("control", "repeats"),
    ]
    assert {role.base for role in TEXTS if role.seed is not None} == {STUDENT, CONTROL}
