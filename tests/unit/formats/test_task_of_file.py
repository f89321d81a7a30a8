"""What a file is for, where its uploader does not say it."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidFile
from service.formats.task_of_file import FilePurpose, purpose_of
from tests.unit.formats.files import write_jsonl, write_npz, write_parquet


@pytest.mark.parametrize(
    ("row", "purpose"),
    [
        ({"text": "a", "label": 1}, FilePurpose("text-classification")),
        ({"tokens": ["a"], "tags": ["O"]}, FilePurpose("token-classification")),
        ({"text": "a", "spans": []}, FilePurpose("token-classification", ("text",), ("spans",))),
        ({"messages": [], "source": 1}, FilePurpose("causal-lm", ("messages",))),
        ({"prompt": "a", "completion": "b"}, FilePurpose("causal-lm", ("prompt",), ("completion",))),
        ({"premise": "a", "hypothesis": "b", "label": 0}, FilePurpose("text-classification", ("premise", "hypothesis"))),
    ],
)
def test_columns_of_usual_names_tell_it_in_every_format_of_rows(
    row: dict[str, Any], purpose: FilePurpose, tmp_path: Path
) -> None:
    assert purpose_of(write_jsonl(tmp_path / "rows.jsonl", [row]), "rows.jsonl") == purpose
    parquet = write_parquet(tmp_path / "rows.parquet", {name: [str(value)] for name, value in row.items()})
    assert purpose_of(parquet, "rows.parquet") == purpose


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_is_read_by_its_own_separator(separator: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(separator.join(["label", "text"]) + "\n" + separator.join(["x", "y"]) + "\n")
    assert purpose_of(tmp_path / "a.csv", "a.csv") == FilePurpose("text-classification")
    (tmp_path / "b.csv").write_text(separator.join(["stars", "review"]) + "\n" + separator.join(["x", "y"]) + "\n")
    assert purpose_of(tmp_path / "b.csv", "b.csv", inputs=["review"], targets=["stars"]) == FilePurpose("text-classification")


def test_files_of_sound_and_of_images_tell_it(tmp_path: Path) -> None:
    for name, task in (("cat/1.png", "image-classification"), ("cat/1.WAV", "audio-classification")):
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
            packed.writestr(name, b"")
        assert purpose_of(tmp_path / "data.zip", "data.zip").task == task
    arrays = write_npz(tmp_path / "a.npz", image=np.zeros((2, 4, 4), np.uint8))
    assert purpose_of(arrays, "a.npz").task == "image-classification"
    sound = write_parquet(tmp_path / "a.parquet", {"audio": [b""], "label": [1]})
    assert purpose_of(sound, "a.parquet").task == "audio-classification"


@pytest.mark.parametrize("row", [{"text": "a"}, {"review": "a", "stars": 1}, {"tokens": ["a"]}])
def test_what_columns_do_not_tell_is_asked_for_with_their_names(row: dict[str, Any], tmp_path: Path) -> None:
    """Of texts alone a language model learns, and an embedding too."""
    with pytest.raises(InvalidFile, match=rf"its columns are '{next(iter(row))}'.*--task.*--input-column.*--target-column"):
        purpose_of(write_jsonl(tmp_path / "rows.jsonl", [row]), "rows.jsonl")


def test_columns_of_two_tasks_are_told_with_both(tmp_path: Path) -> None:
    row = {"text": "a", "label": 1, "spans": []}
    with pytest.raises(InvalidFile, match="may be for text-classification or token-classification"):
        purpose_of(write_jsonl(tmp_path / "rows.jsonl", [row]), "rows.jsonl")


def test_a_column_that_is_named_and_holds_no_texts_tells_nothing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"img": [b""], "label": [1]})
    with pytest.raises(InvalidFile, match="does not tell what it is for"):
        purpose_of(path, "a.parquet", inputs=["img"])


def test_a_column_that_is_named_and_not_there_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="does not tell what it is for"):
        purpose_of(write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label": 1}]), "a.jsonl", inputs=["txt"])
