"""The fields in which specs differ."""

from service.spec.differences import ABSENT, differing_fields


def test_only_what_differs_is_named_with_every_value() -> None:
    specs = [{"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}]
    assert differing_fields(specs) == {"/b/c": [2, 5, 2]}


def test_a_field_that_one_lacks_and_an_object_that_is_a_value_in_the_other_are_told() -> None:
    specs = [{"a": {"x/y": 1}}, {"a": None, "b": 0}]
    assert differing_fields(specs) == {"/a/x~1y": [1, ABSENT], "/a": [ABSENT, None], "/b": [ABSENT, 0]}


def test_lists_are_values_and_equal_specs_differ_in_nothing() -> None:
    assert differing_fields([{"a": [1, 2]}, {"a": [1]}]) == {"/a": [[1, 2], [1]]}
    assert differing_fields([{"a": {}}, {"a": {}}]) == {}
