"""Files of kinds that are not read are refused with what they are, and with a remedy that works: each is tried here."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from service.spec.tasks import TaskName
from tests.unit.formats.files import encoded, inspect, refusal, some_images, write_jsonl, write_npz, write_parquet
from tests.unit.formats.sounds import some_sound, sound_file
from tests.unit.test_archives import tarred, zipped

TEXT: TaskName = "text-classification"
CSV = b"text,label\na,0\nb,1\n"
JSONL = b'{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n'
IMAGES = some_images(4, 4, 4)
LABELS = np.arange(4) % 2
CHAT = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]


def stored(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("compress", "suffix", "words"),
    [
        (gzip.compress, "gz", "is one file compressed with gzip; unpack it first: gunzip a.gz"),
        (bz2.compress, "bz2", "is one file compressed with bzip2; unpack it first: bunzip2 a.bz2"),
        (lzma.compress, "xz", "is one file compressed with xz; unpack it first: unxz a.xz"),
    ],
)
def test_a_compressed_file_that_is_no_text_is_to_be_unpacked(
    tmp_path: Path, compress: Callable[[bytes], bytes], suffix: str, words: str
) -> None:
    content = write_parquet(tmp_path / "a", {"text": ["a", "b"], "label": [0, 1]}).read_bytes()
    assert words in refusal(stored(tmp_path, f"a.{suffix}", compress(content)), task=TEXT)
    assert inspect(tmp_path / "a", task=TEXT).classes == ["0", "1"]


def test_a_compressed_parquet_or_npz_is_to_be_unpacked_and_a_compressed_tar_is_read(tmp_path: Path) -> None:
    npz = write_npz(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    assert "compressed with gzip; unpack it first" in refusal(stored(tmp_path, "a.npz.gz", gzip.compress(npz.read_bytes())))
    files = [(f"{name}/1.png", encoded(IMAGES[0])) for name in ("cat", "dog")]
    assert inspect(stored(tmp_path, "dataset:ds_1", tarred(files, compress=gzip.compress))).classes == ["cat", "dog"]
    assert "holds no file" in refusal(stored(tmp_path, "a.tgz", tarred([], compress=gzip.compress)))


def workbook() -> bytes:
    return zipped([("[Content_Types].xml", b"<Types/>"), ("xl/workbook.xml", b"<workbook/>")])


def sheet() -> bytes:
    return zipped([("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), ("content.xml", b"<x/>")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (workbook(), "is an Excel workbook, which is not read; open it and save the sheet as CSV"),
        (sheet(), "is an OpenDocument sheet, which is not read; open it and save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is an Excel workbook or another document of Office"),
        (
            zipped([("rows.csv", CSV), ("__MACOSX/._rows.csv", b"x")]),
            "is a zip of 'rows.csv'; unpack it and send one file of rows",
        ),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "is a 7z archive, which is not read; unpack it and pack the folder as a zip"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "is compressed with zstd, which is not read; unpack it first: unzstd"),
        (pickle.dumps({"text": ["a"]}), "is a pickle, which is never loaded"),
    ],
)
def test_a_file_of_another_program_is_told_as_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(stored(tmp_path, "upload", content), task=TEXT)
    assert inspect(stored(tmp_path, "rows.csv", CSV), task=TEXT).classes == ["0", "1"]


def test_arrow_files_are_to_be_written_as_parquet(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    feather, stream, mended = (tmp_path / name for name in ("a.feather", "a.arrow", "data.parquet"))
    pyarrow.feather.write_feather(table, feather, compression="uncompressed")
    assert "pyarrow.parquet.write_table(pyarrow.feather.read_table(…), 'data.parquet')" in refusal(feather, task=TEXT)
    pq.write_table(pyarrow.feather.read_table(feather), mended)
    assert inspect(mended, task=TEXT).classes == ["0", "1"]
    with pa.OSFile(str(stream), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert "pyarrow.parquet.write_table(pyarrow.ipc.open_stream(…).read_all(), 'data.parquet')" in refusal(stream, task=TEXT)
    pq.write_table(pa.ipc.open_stream(stream.read_bytes()).read_all(), mended)
    assert inspect(mended, task=TEXT).classes == ["0", "1"]


def test_a_lone_array_is_to_be_written_with_its_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    words = refusal(tmp_path / "a.npy")
    assert (
        "is a lone array (.npy), which is not read; write all columns into one file: numpy.savez_compressed('data.npz'" in words
    )
    assert inspect(write_npz(tmp_path / "data.npz", compressed=True, image=IMAGES, label=LABELS)).classes == ["0", "1"]


@pytest.mark.parametrize("kind", ["image", "audio"])
@pytest.mark.parametrize("stored_as", ["{bytes: null, path}", "paths"])
def test_paths_in_place_of_files_are_told_and_files_embedded_as_told_are_read(tmp_path: Path, kind: str, stored_as: str) -> None:
    task: TaskName = "image-classification" if kind == "image" else "audio-classification"
    contents = [encoded(image) if kind == "image" else sound_file(some_sound(400)) for image in IMAGES]
    paths = [str(stored(tmp_path, f"{row}.bin", content)) for row, content in enumerate(contents)]
    column: Any = paths
    if stored_as != "paths":
        column = pa.array(
            [{"bytes": None, "path": path} for path in paths], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
    words = refusal(write_parquet(tmp_path / "a.parquet", {kind: column, "label": LABELS}), task=task)
    assert "store the files themselves, for each row {'bytes': pathlib.Path(path).read_bytes(), 'path': path}" in words
    assert stored_as == "paths" or f"row 0: the path {paths[0]!r} without the file's bytes" in words
    embedded = [{"bytes": Path(path).read_bytes(), "path": path} for path in paths]
    assert inspect(write_parquet(tmp_path / "a.parquet", {kind: embedded, "label": LABELS}), task=task).splits == {"train": 4}


def test_chats_are_for_a_causal_lm_and_texts_elsewhere(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "a.jsonl", [{"messages": CHAT, "label": row % 2} for row in range(4)])
    table = write_parquet(tmp_path / "a.parquet", {"messages": [CHAT] * 4, "label": LABELS})
    for path in (rows, table):
        assert "upload it with input_column=messages" in refusal(path, task="causal-lm")
        assert inspect(path, task="causal-lm", input_column="messages", target_columns=[]).columns["messages"].kind == "messages"
        with pytest.raises(Exception, match=r"texts? (is a string|are strings)") as named:
            inspect(path, task=TEXT, input_column="messages")
        assert "tokenizer.apply_chat_template(messages, tokenize=False)" in str(named.value)


def test_prompts_and_completions_are_to_be_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "why?", "completion": "because"}] * 2)
    assert "upload it with input_column=prompt and target_column=completion" in refusal(path, task="causal-lm")
    info = inspect(path, task="causal-lm", input_column="prompt", target_columns=["completion"])
    assert info.columns["completion"].kind == "text"


def test_a_damaged_file_of_a_known_kind_is_still_told_as_damaged(tmp_path: Path) -> None:
    assert "broken or cut off" in refusal(stored(tmp_path, "a.npz", b"PK\x03\x04" + bytes(100)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.png", encoded(IMAGES[0]))
    assert "zip" in refusal(stored(tmp_path, "a.zip", buffer.getvalue()[:-30]))
