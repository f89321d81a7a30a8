"""YAML as people write it, read as JSON's kinds of values; what is more than that is refused with its place."""

import pytest

from service.spec.yaml_document import MAX_DEPTH, MAX_VALUES, NotYaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("1e-3", 1e-3),
        ("-2E5", -2e5),
        (".5e1", 5.0),
        ("1.", 1.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("''", ""),
        ("| \n  12", "12"),
        *((text, text) for text in ("yes", "off", "2026-02-30", "2026-11-30", "12:30:45", "1_000", "0x1f", "0o7", "007", "-007")),
        *((text, text) for text in ("1e", "e3", ".", ".inf", ".nan", "=", "1.2.3", "١٢")),
    ],
)
def test_what_stands_plain_is_of_a_kind_of_json_or_text(text: str, value: object) -> None:
    found = load_yaml(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


def test_a_document_is_read_with_what_it_repeats() -> None:
    text = "base: &base {a: 1, b: [2]}\nmore: {<<: *base, a: 3}\nlist: [*base, x]\nboth: {<<: [{c: 4}, *base]}\n"
    base = {"a": 1, "b": [2]}
    assert load_yaml(text) == {"base": base, "more": base | {"a": 3}, "list": [base, "x"], "both": base | {"c": 4}}


def test_nothing_is_nothing() -> None:
    assert load_yaml("# only this\n") is None


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: !!bool maybe", "line 2, column 4", "no tags (!!bool)"),
        ('a: !!int ""', "line 1, column 4", "no tags (!!int)"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, column 4", "no tags"),
        ("a: !own {b: 1}", "line 1, column 4", "no tags (!own)"),
        ("%YAML 1.1\n--- {a: 1}", "line 1, column 1", "no directives"),
        ("# x\n%TAG ! tag:x,2000:\n---\na: 1", "line 2, column 1", "no directives"),
        ("a: 1\n---\nb: 2", "line 2, column 1", "a second document"),
        ("1: x", "line 1, column 1", "a field's name must be text, not 1"),
        ("a: {true: x}", "line 1, column 5", "a field's name must be text, not True"),
        ("? [1, 2]\n: x", "line 1, column 3", "a field's name must be text"),
        ("a:\n  - b: c: d", "line 2, column 9", "mapping values are not allowed"),
        ("a: [1, 2", "line 2, column 1", "did not find expected"),
        ("a: 'x", "line 1, column 6", "found unexpected end of stream"),
        ("a: *b", "line 1, column 4", "*b repeats what has no end before"),
        ("&all {a: *all}", "line 1, column 10", "*all repeats what has no end before"),
        ("a: {<<: 1}", "line 1, column 9", "<< takes an object"),
        ("a: 123456789012345678901", "line 1, column 4", "at most 64 bits"),
        ("a: -1e999", "line 1, column 4", "finite"),
        ("a: x\0", "character 4", "control characters are not allowed"),
    ],
)
def test_what_is_more_than_a_document_of_values_is_refused_with_its_place(text: str, place: str, words: str) -> None:
    with pytest.raises(NotYaml) as refused:
        load_yaml(text)
    assert str(refused.value).startswith(f"{place}: ")
    assert words in str(refused.value)


def test_aliases_are_refused_where_they_are_not_wanted() -> None:
    with pytest.raises(NotYaml, match=r"line 2, column 4: a spec may not use aliases \(\*x\); write the value out"):
        load_yaml("a: &x 1\nb: *x", aliases=False)


def test_values_are_counted_behind_each_alias() -> None:
    laughs = "\n".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdef", "bcdefg", strict=True)
    )
    with pytest.raises(NotYaml, match=r"line 6, .*more than 50,000 values"):
        load_yaml(f"a: &a lol\n{laughs}\n")


@pytest.mark.parametrize("row", ["- a\n", "- {}\n"])
def test_so_many_values_and_no_more(row: str) -> None:
    fitting = load_yaml(row * (MAX_VALUES - 1))
    assert len(fitting) == MAX_VALUES - 1
    with pytest.raises(NotYaml, match="more than 50,000 values"):
        load_yaml(row * MAX_VALUES)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_so_deep_and_no_deeper(opening: str, closing: str) -> None:
    load_yaml(opening * MAX_DEPTH + "x" + closing * MAX_DEPTH)
    with pytest.raises(NotYaml, match="values may be nested 64 levels deep"):
        load_yaml(opening * (MAX_DEPTH + 1) + "x" + closing * (MAX_DEPTH + 1))
