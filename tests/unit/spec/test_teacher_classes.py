"""Classes that the data do not tell are the teacher's; those that they tell stay."""

import pytest

from service.spec.teacher_classes import adopted_classes

DIGITS = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("ours", "theirs", "adopted"),
    [
        ({"label": []}, ["cat", "dog"], {"label": ["cat", "dog"]}),
        ({"label": []}, ["label"], {"label": None}),
        ({"label": []}, ["anything"], {"label": None}),
        ({"label": []}, [], {}),
        ({"label": ["0", "1", "2"]}, DIGITS, {"label": DIGITS}),
        ({"label": ["0", "1", "2"]}, DIGITS[::-1], {"label": DIGITS[::-1]}),
        ({"label": DIGITS}, DIGITS[::-1], {}),
        ({"label": ["0", "1"]}, ["no", "yes", "maybe"], {}),
        ({"label": ["cat", "dog"]}, ["cat", "dog", "emu"], {}),
        ({"label": ["1", "2"]}, DIGITS, {}),
        ({"label": None}, ["cat", "dog"], {}),
        ({"a": [], "b": []}, ["a: x", "a: y", "b"], {"a": ["x", "y"], "b": None}),
        ({"a": ["0", "1"], "b": ["u", "v"]}, ["a: 0", "a: 1", "a: 2", "b: u", "b: v"], {"a": ["0", "1", "2"]}),
        ({"a": [], "b": []}, ["cat", "dog"], {}),
    ],
)
def test_a_target_has_its_teachers_classes_where_the_data_do_not_tell_them(
    ours: dict[str, list[str] | None], theirs: list[str], adopted: dict[str, list[str] | None]
) -> None:
    assert adopted_classes(ours, theirs) == adopted


def test_a_teacher_of_one_target_need_not_name_it() -> None:
    assert adopted_classes({"a": [], "b": []}, ["cat", "dog"], teaches=["b"]) == {"b": ["cat", "dog"]}
