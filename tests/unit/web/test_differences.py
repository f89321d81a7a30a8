"""Where documents differ."""

from service.web.differences import differing


def test_only_the_places_that_differ_are_named() -> None:
    first = {"name": "a", "method": {"name": "dkd", "alpha": 1.0}, "seed": 0, "same": {"x": [1]}}
    second = {"name": "b", "method": {"name": "soft-targets"}, "seed": 0, "same": {"x": [1]}}
    assert differing([first, second]) == [("/method/name", ["dkd", "soft-targets"]), ("/method/alpha", ["1.0", "–"])]


def test_what_is_equal_in_python_alone_differs() -> None:
    assert differing([{"a": 1}, {"a": True}]) == [("/a", ["1", "True"])]


def test_an_object_beside_another_value_is_shown_whole() -> None:
    assert differing([{"a": None}, {"a": {"b": 1}}]) == [("/a", ["null", "{'b': 1}"])]


def test_a_pointer_escapes_what_has_a_meaning_in_it() -> None:
    assert differing([{"a/b": {"~": 1}}, {"a/b": {"~": 2}}]) == [("/a~1b/~0", ["1", "2"])]


def test_one_document_or_none_differs_nowhere() -> None:
    assert differing([]) == differing([{"a": 1}]) == []
