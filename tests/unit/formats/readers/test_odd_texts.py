"""Text files as all kinds of programs write them: each is read as it was meant, or refused with its line and a remedy."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from service.formats.readers import json_array, text_file
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, target

TASK: TaskName = "text-classification"
CSV = "text,label\r\nein Hund,de\r\na dog,en\r\nżaba,pl\r\n"
ROWS = [{"text": "ein Hund", "label": "de"}, {"text": "a dog", "label": "en"}, {"text": "żaba", "label": "pl"}]
JSONL = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=2)


def stored(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(folder: Path, content: str | bytes, *, name: str = "a.csv") -> str:
    return refusal(stored(folder, name, content), task=TASK)


def texts(path: Path) -> object:
    return read(path, task=TASK).splits["train"].inputs


# ---------------------------------------------------------------- compressed


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_file_of_rows_is_read_as_it_is_unpacked(
    tmp_path: Path, name: str, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    content = {"a.csv": CSV, "a.jsonl": JSONL, "a.json": ARRAY}[name].encode()
    path = stored(tmp_path, f"{name}{suffix}", compress(content))
    assert texts(path) == texts(stored(tmp_path, name, content)) == ["ein Hund", "a dog", "żaba"]
    assert inspect(path, task=TASK).classes == ["de", "en", "pl"]


@pytest.mark.parametrize("text", [CSV * 200, JSONL * 200, "[" + ",".join([JSONL.split("\n")[0]] * 600) + "]"])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path, text: str) -> None:
    content = gzip.compress(text.encode(), mtime=0)
    assert "compress it again" in refused(tmp_path, content[:-30], name="a")


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "LEAST_ALLOWANCE_BYTES", 2**16)
    content = gzip.compress(b"text,label\n" + b"a,0\n" * 100_000, mtime=0)
    assert "unpacks to far more than its own size; that is refused: send it unpacked" in refused(tmp_path, content)


# ---------------------------------------------------------------- encodings and line ends


@pytest.mark.parametrize(
    ("encoding", "told"), [("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")]
)
@pytest.mark.parametrize("text", [CSV, JSONL], ids=["CSV", "JSONL"])
def test_text_of_two_or_four_bytes_a_character_is_to_be_saved_as_utf_8(
    tmp_path: Path, encoding: str, told: str, text: str
) -> None:
    words = refused(tmp_path, text.encode(encoding), name="a.txt")
    assert words == (
        f"'a.txt' is text in {told}; save it as UTF-8 (in Excel: CSV UTF-8), or iconv -f {told} -t UTF-8 a.txt > utf8-a.txt"
    )


@pytest.mark.parametrize("text", ["ein Hund,é", '{"text": "é", "label": "de"}'])
def test_text_of_another_encoding_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    assert "line 2 is no UTF-8" in refused(tmp_path, f"text,label\n{text}\n".encode("latin-1"))


def test_lines_that_end_as_on_old_macs_are_told(tmp_path: Path) -> None:
    words = refused(tmp_path, CSV.replace("\r\n", "\r"))
    assert "the lines end with carriage returns alone (\\r), from line 1 on" in words
    assert texts(stored(tmp_path, "b.csv", CSV.replace("\r\n", "\r").replace("\r", "\n"))) == ["ein Hund", "a dog", "żaba"]


# ---------------------------------------------------------------- separators of a CSV


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff", "sep=*\r\n", "\ufeffsep=*\r\n"])
def test_the_separator_is_the_one_by_which_the_input_is_a_column(tmp_path: Path, separator: str, start: str) -> None:
    text = 'label*text*note\r\nde*"ein *Hund"*1,5\r\nen*"a, ""dog"""*2\r\npl*"C:\\new\\table,\r\n1"*\r\n'
    path = stored(tmp_path, "a.csv", (start + text).replace("*", separator))
    arrays = read(path, task=TASK)
    assert arrays.splits["train"].inputs == [f"ein {separator}Hund", 'a, "dog"', "C:\\new\\table,\r\n1"]
    assert arrays.classes == {"label": ["de", "en", "pl"]}


def test_a_file_separated_by_commas_may_have_other_separators_in_its_names_and_texts(tmp_path: Path) -> None:
    assert texts(stored(tmp_path, "a.csv", "text,label,a;b\na;b\tc|d,0,1\nx,1,2\n")) == ["a;b\tc|d", "x"]


def test_a_row_of_another_number_of_fields_is_refused_by_its_line(tmp_path: Path) -> None:
    assert "line 3 has 3 fields, and line 1 names 2 columns" in refused(tmp_path, "text;label\na;0\nb;c;1\n")


@pytest.mark.parametrize("number", ["1,5", "-0,25", "2,5e-3"])
def test_a_number_that_may_have_a_decimal_comma_is_refused(tmp_path: Path, number: str) -> None:
    words = refused(tmp_path, f"text;label\na;1\nb;{number}\n")
    assert f"column 'label', line 3: '{number}' may be a number with a decimal comma" in words
    assert words.endswith(f"write numbers with a point, {number.replace(',', '.')}")


def test_quoted_numbers_with_a_decimal_comma_are_told_as_numbers_in_strings(tmp_path: Path) -> None:
    warnings = inspect(stored(tmp_path, "a.csv", 'text,label\na,"1,5"\nb,"2,5"\nc,"1,5"\n'), task=TASK).warnings
    assert [each.code for each in warnings] == ["numbers_in_strings"]


# ---------------------------------------------------------------- arrays of JSON


@pytest.mark.parametrize("indent", [None, 0, 4])
@pytest.mark.parametrize("piece_bytes", [1, 7, 2**20])
def test_an_array_of_rows_is_read_wherever_it_is_cut_into_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, piece_bytes: int
) -> None:
    monkeypatch.setattr(json_array, "_PIECE_BYTES", piece_bytes)
    path = stored(tmp_path, "a.json", f"\ufeff \n{json.dumps(ROWS, ensure_ascii=False, indent=indent)}\n")
    arrays = read(path, task=TASK)
    assert (arrays.splits["train"].inputs, target(arrays.splits["train"])) == (["ein Hund", "a dog", "żaba"], [0, 1, 2])
    places = arrays.splits["train"].places
    assert places is not None
    assert places.lines is not None
    assert places.lines.tolist() == ([2, 2, 2] if indent is None else [3, 7, 11])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[\n{"text": "a", "label": 0},\n7]', "line 3 is no JSON object but '7'"),
        (
            '[\n{"text": "a", "label": 0}\n{"text": "b", "label": 1}]',
            "line 3 is no JSON: '{' stands where ',' or ']' was expected",
        ),
        ('[\n{"text": "a", "label": 0},\n{"text": "b",\n "label" 1}]', "line 4 is no JSON"),
        ('[\n{"text": "a", "label": 0},\n{"text": "b"', "in the row that begins on line 3"),
        ('[\n{"text": "a", "label": 0},', "line 2 is no JSON"),
        ('[\n{"text": "a", "label": 0}', "line 2 is no JSON: the file ends where ',' or ']' was expected"),
        ('[{"text": "a", "label": 0}]\n[]', "line 2: something follows the end of the array"),
        ('[{"text": "a", "label": 0},\n\n{"text": "a", "text": "b", "label": 0}]', "line 3 has the key 'text' twice; keep one"),
        ("[\n]", "its columns are none"),
        ('{"data": [\n{"text": "a", "label": 0}]}', "line 1 is no JSON"),
    ],
)
def test_an_array_that_is_no_list_of_rows_is_refused_by_its_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refused(tmp_path, text, name="a.json")


def test_a_row_of_an_array_is_no_longer_than_a_line_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "_PIECE_BYTES", 2**10)
    monkeypatch.setattr(json_array, "MAX_LINE_BYTES", 2**12)
    assert "line 1 is no JSON" in refused(tmp_path, json.dumps([{"text": "a" * 2**14, "label": 0}]), name="a.json")


# ---------------------------------------------------------------- fields of fields, names


def test_a_dotted_name_is_a_field_of_an_object(tmp_path: Path) -> None:
    reviews = [{"body": "a", "stars": {"of": 1}}, {"body": "b", "stars": None}, {"body": "c"}, {"body": "d", "stars": {"of": 0}}]
    path = stored(tmp_path, "a.jsonl", "".join(f"{json.dumps({'review': review})}\n" for review in reviews))
    arrays = read(path, task=TASK, input_column="review.body", targets=["review.stars.of"])
    assert arrays.splits["train"].inputs == ["a", "b", "c", "d"]
    assert target(arrays.splits["train"], "review.stars.of") == [1, -1, -1, 0]
    info = inspect(path, task=TASK, input_column="review.body", target_columns=["review.stars.of"])
    assert {name: column.kind for name, column in info.columns.items()} == {
        "review": "other", "review.body": "text", "review.stars.of": "label",
    }  # fmt: skip
    assert [each.code for each in info.warnings] == ["labels_missing"]


def test_a_column_with_a_dot_in_its_own_name_comes_first(tmp_path: Path) -> None:
    row = '{"a.b": "itself", "a": {"b": "within"}, "label": 0}\n'
    path = stored(tmp_path, "a.jsonl", row + row.replace("0}", "1}"))
    assert read(path, task=TASK, input_column="a.b").splits["train"].inputs == ["itself", "itself"]


def test_an_input_that_is_no_field_is_refused_by_its_line(tmp_path: Path) -> None:
    text = '{"a": {"b": "x"}, "label": 0}\n{"a": "plain", "label": 1}\n'
    assert "line 2 has no 'a.b', it has 'a', 'label'" in refusal(stored(tmp_path, "a.jsonl", text), task=TASK, input_column="a.b")
    text = '{"a": {"b": "x"}, "label": 0}\n{"a": null, "label": 1}\n'
    assert "column 'a.b', line 2" in refusal(stored(tmp_path, "a.jsonl", text), task=TASK, input_column="a.b")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_one_name_in_two_forms_of_unicode_is_one_class(tmp_path: Path, name: str) -> None:
    labels = ["caf\u00e9", "cafe\u0301", "tea", "cafe\u0301"]
    rows = [f"row {index}" for index in range(len(labels))]
    lines = [f"{row},{label}" for row, label in zip(rows, labels, strict=True)]
    if name == "a.jsonl":
        lines = [json.dumps({"text": row, "label": label}) for row, label in zip(rows, labels, strict=True)]
    path = stored(tmp_path, name, "\n".join(lines if name == "a.jsonl" else ["text,label", *lines]))
    info = inspect(path, task=TASK)
    assert (info.classes, info.class_counts, info.warnings) == (["caf\u00e9", "tea"], {"train": [3, 1]}, [])
    assert target(read(path, task=TASK).splits["train"]) == [0, 0, 1, 0]


def test_one_tag_in_two_forms_of_unicode_is_one(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["B-\u00c9", "O"]}, {"tokens": ["c"], "tags": ["B-E\u0301"]}]
    path = stored(tmp_path, "a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert inspect(path, task="token-classification").classes == ["B-\u00c9", "O"]


@pytest.mark.parametrize("index", ["", "Unnamed: 0"])
def test_the_index_that_pandas_writes_is_no_column_to_tell_of(tmp_path: Path, index: str) -> None:
    path = stored(tmp_path, "a.csv", f"{index},text,label\n0,a,x\n1,b,y\n2,c,x\n")
    info = inspect(path, task=TASK)
    assert (info.columns[index].kind, info.warnings) == ("other", [])
