"""The fields in which specs differ."""

from service.spec.differences import ABSENT, differing_fields, value_text


def test_only_what_differs_is_named_with_every_value() -> None:
    specs = [{"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 5, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}]
    assert differing_fields(specs) == {"/b/c": [2, 5, 2]}


def test_a_field_that_one_lacks_is_absent_there_and_the_name_of_the_whole_is_no_choice() -> None:
    first = {"name": "a", "method": {"name": "dkd", "alpha": 1.0}, "seed": 0}
    second = {"name": "b", "method": {"name": "soft-targets"}, "seed": 0}
    assert differing_fields([first, second]) == {"/method/name": ["dkd", "soft-targets"], "/method/alpha": [1.0, ABSENT]}


def test_what_is_equal_in_python_alone_differs() -> None:
    assert differing_fields([{"a": 1}, {"a": True}]) == {"/a": [1, True]}


def test_an_object_beside_another_value_and_a_list_are_values() -> None:
    assert differing_fields([{"a": None}, {"a": {"b": 1}}]) == {"/a": [None, {"b": 1}]}
    assert differing_fields([{"a": [1, 2]}, {"a": [1]}]) == {"/a": [[1, 2], [1]]}


def test_a_pointer_escapes_what_has_a_meaning_in_it() -> None:
    assert differing_fields([{"a/b": {"~": 1}}, {"a/b": {"~": 2}}]) == {"/a~1b/~0": [1, 2]}


def test_equal_specs_one_or_none_differ_nowhere() -> None:
    assert differing_fields([]) == differing_fields([{"a": 1}]) == differing_fields([{"a": {}}, {"a": {}}]) == {}


def test_values_are_written_as_json_and_texts_as_they_are() -> None:
    assert [value_text(value) for value in ("a", 1.0, None, {"ü": True})] == ["a", "1.0", "null", '{"ü": true}']
