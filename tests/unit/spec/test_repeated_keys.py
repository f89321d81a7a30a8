"""Keys that stand twice in one object of a document."""

import pytest

from service.errors import InvalidSpec
from service.spec.repeated_keys import repeated_in_json
from service.spec.yaml_document import load_yaml


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"a": 1, "a": 1}', {"/a": "2 times"}),
        ('{"a": 1, "b": {"c": 1, "d": 2, "c": 3, "c": 4}}', {"/b/c": "3 times"}),
        ('{"x": [{"a/b": 1, "a/b": 2}, {"c~": 1, "c~": 2}]}', {"/x/0/a~1b": "2 times", "/x/1/c~0": "2 times"}),
        ('{"a": {"b": 1}, "a": {"b": 1, "b": 2}}', {"/a": "2 times", "/a/b": "2 times"}),
        ('{"\\u0061": 1, "a": 2}', {"/a": "2 times"}),
        ('{"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}', {}),
        ("[1, null]", {}),
    ],
)
def test_a_key_that_json_has_twice_is_found_with_its_place(text: str, places: dict[str, str]) -> None:
    assert {
        fault.pointer: fault.message.split(",")[0].removeprefix("this field stands ") for fault in repeated_in_json(text)
    } == places


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a: 1\nb: 2\na: 3\n", {"/a": "1, 3"}),
        ("method:\n  name: dkd\n  'name': dist\n", {"/method/name": "2, 3"}),
        ("x:\n- {a: 1,\n   a: 2}\n- {a: 1}\n", {"/x/0/a": "2, 3"}),
        ('{"a": 1, "a": 2}', {"/a": "1, 1"}),
        ("a: 1\n'a': 2\n\"\\x61\": 3\n", {"/a": "1, 2, 3"}),
        ("a: &one {b: 1}\nc: *one\nd: *one\n", {}),
        ("base: &base {b: 1}\nc: {<<: *base, b: 2}\n", {}),
    ],
)
def test_a_key_that_yaml_has_twice_is_found_with_its_lines(text: str, places: dict[str, str]) -> None:
    found = {}
    try:
        load_yaml(text)
    except InvalidSpec as refused:
        found = {fault.pointer: fault.message.partition("on lines ")[2].partition(", and")[0] for fault in refused.faults}
    assert found == places
