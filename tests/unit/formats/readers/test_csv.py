"""What is read from CSV, and what is refused with which words."""

from pathlib import Path

import pytest

from service.errors import InvalidFile
from service.spec.tasks import TaskName
from tests.unit.formats.files import inspect, read, refusal, target

TASK: TaskName = "text-classification"


def write_csv(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return path


def test_quoted_fields_hold_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "id,text,label", '1,"a, ""b""",x', "", '2,"two', 'lines",y')
    arrays = read(path, task=TASK)
    assert arrays.splits["train"].inputs == ['a, "b"', "two\r\nlines"]
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["x", "y"]}, [0, 1])
    kinds = {column: told.kind for column, told in inspect(path, task=TASK).columns.items()}
    assert kinds == {"id": "other", "text": "text", "label": "label"}


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbftext,label\na,0\nb,1")
    assert read(tmp_path / "a", task=TASK).splits["train"].inputs == ["a", "b"]


def test_a_column_called_split_divides_the_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "text,label,split", "a,x,train", "b,y,train", "c,y,test")
    assert inspect(path, task=TASK).splits == {"train": 2, "test": 1}
    assert read(path, task=TASK).splits["test"].inputs == ["c"]


@pytest.mark.parametrize(
    ("fields", "kind", "values"),
    [
        (["0", "1", "+2"], "label", [0, 1, 2]),
        (["0.0", "1", "2e-1"], "number", [0.0, 1.0, 0.2]),
        (["-.5", "1.", "3"], "number", [-0.5, 1.0, 3.0]),
        (["0", "1", "two"], "label", [0, 1, 2]),
        (["7", "07", "nine"], "label", [1, 0, 2]),
        ([" 1", "1_0", "0x1"], "label", [0, 2, 1]),
    ],
)
def test_a_column_is_what_all_of_its_values_can_be_read_as(
    tmp_path: Path, fields: list[str], kind: str, values: list[float]
) -> None:
    path = write_csv(tmp_path / "a.csv", "text,label", *(f"row {index},{text}" for index, text in enumerate(fields)))
    assert inspect(path, task=TASK).columns["label"].kind == kind
    assert target(read(path, task=TASK).splits["train"]) == values


def test_an_empty_field_is_a_missing_value_among_several_targets(tmp_path: Path) -> None:
    lines = ["text,label,score,tone", "a,0,,", "b,,1.5,warm", "c,1,2,cold", "d,1,nan,"]
    path = write_csv(tmp_path / "a.csv", *lines)
    arrays = read(path, task=TASK, targets=["label", "score", "tone"])
    assert target(arrays.splits["train"], "label") == [0, -1, 1, 1]
    assert target(arrays.splits["train"], "score")[1:3] == [1.5, 2.0]
    assert target(arrays.splits["train"], "tone") == [-1, 1, 0, -1]
    columns = inspect(path, task=TASK, target_columns=["label", "score", "tone"]).columns
    assert {name: columns[name].num_missing for name in ("label", "score", "tone")} == {"label": 1, "score": 2, "tone": 2}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["text,label", "a,0", "b"], "line 3 has 1 fields, and line 1 names 2 columns"),
        (["text,label", '"a', 'a",0', "b,1,2"], "line 4 has 3 fields"),
        (["text,label", 'a"b,0', '"c"d,1'], "the row that begins on line 3 is no CSV"),
        (["text,label", "a,0", '"b,1', "c,0"], "the row that begins on line 3 is no CSV: unexpected end of data"),
        (["text,label", "a,0", "b\rc,1"], "the row that begins on line 3 is no CSV"),
        (["text,text,label", "a,b,0"], "line 1 names column 'text' twice"),
        (["texte;label", "a;0"], "its columns are 'texte;label'; fields are separated by commas, semicolons or tabs"),
        (["a,b"], "no input column 'text'; its columns are 'a', 'b'"),
        (["text,label"], "the file has no rows"),
        (["text,label", "a,0", ",1"], "column 'text', line 3: the text is empty"),
        (["text,label", "a,0", "b,inf", "c,1"], "row 1 (line 3): inf is infinite"),
        (["text,label", "a,0", "b,99999999999999999999"], "column 'label', line 3: the label is beyond 64 bits"),
        (["text,label", "a,-2", "b,0"], "column 'label', line 2: label -2"),
        (["text,label,split", "a,x,train", "b,y,"], "column 'split', line 3: there is no name of a split"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_its_place(tmp_path: Path, lines: list[str], words: str) -> None:
    assert words in refusal(write_csv(tmp_path / "a.csv", *lines), task=TASK)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; for text-classification send Parquet (pyarrow.parquet.write_table) or JSONL"),
        (b"text,label\na,0\n\xff,1\n", "line 3 is no UTF-8"),
        (b"\xfet,l", "line 1 is no UTF-8"),
        (b'{"text": "a", "label": 0}\n', "is called a CSV and begins like JSON"),
        (b"PK\3\4", "is an npz file, which holds no texts"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert words in refusal(tmp_path / "a.csv", task=TASK)


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.readers.csv.MAX_LINE_BYTES", 100)
    path = write_csv(tmp_path / "a.csv", "text,label", "a,0", '"b,1', *(f"row {index},1" for index in range(100)))
    with pytest.raises(
        InvalidFile, match="the row that begins on line 3 has more than 100 characters; is a quote in it never closed"
    ):
        inspect(path, task=TASK)
