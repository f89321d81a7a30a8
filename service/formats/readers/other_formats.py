"""Files in formats that are not read but often sent: each is recognised by its first bytes, and told with the way to send it."""

import codecs
import zipfile
from pathlib import Path, PurePosixPath

from service.archives import DAMAGE, is_of_system
from service.errors import InvalidFile
from service.formats.readers.members import holds_tar

_AS_CSV = "open it and save the sheet as CSV (UTF-8, separated by commas)"
_AS_ZIP = "unpack it and pack the folder as a zip"
# First bytes, what the file is, and what to do.
_KINDS: list[tuple[bytes, str, str]] = [
    (
        b"\x93NUMPY",
        "is a lone array (.npy)",
        "write all columns into one file: numpy.savez_compressed('data.npz', image=…, label=…)",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file",
        "write its arrays into an npz with numpy.savez_compressed, or its table to Parquet",
    ),
    (
        b"ARROW1\0\0",
        "is an Arrow (Feather) file",
        "write it as Parquet: pyarrow.parquet.write_table(pyarrow.feather.read_table(…), 'data.parquet')",
    ),
    (
        b"\xff\xff\xff\xff",
        "is an Arrow stream, as Dataset.save_to_disk writes it",
        "write it as Parquet: pyarrow.parquet.write_table(pyarrow.ipc.open_stream(…).read_all(), 'data.parquet')",
    ),
    (b"Rar!\x1a\x07", "is a RAR archive", _AS_ZIP),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _AS_ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Excel workbook or another document of Office", _AS_CSV),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it first: unzstd"),
]
_COMPRESSED = [
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\x00", "xz", "unxz"),
]
COMPRESSED = {".gz", ".bz2", ".xz"}
"""Suffixes of files that are compressed, behind the one of what they hold."""
_DATA_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".npz", ".xlsx", *COMPRESSED}
_MARKS = [
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
]
_LEAST_LETTERS = 16
_PICKLES = {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}


def refuse_other_format(path: Path, start: bytes, filename: str) -> None:
    """Raises InvalidFile, with what the file is and how to send its contents, if it is in one of these formats."""
    for magic, what, remedy in _KINDS:
        if start.startswith(magic):
            raise InvalidFile(f"{filename!r} {what}, which is not read; {remedy}")
    if start[:2] in _PICKLES:
        raise InvalidFile(f"{filename!r} is a pickle, which is never loaded; write its arrays with numpy.savez_compressed")
    for magic, name, command in _COMPRESSED:
        if start.startswith(magic) and not holds_tar(path):
            raise InvalidFile(f"{filename!r} is one file compressed with {name}; unpack it first: {command} {filename}")
    if encoding := _wide_encoding(start):
        command = f"iconv -f {encoding} -t UTF-8 {filename} > utf8-{filename}"
        raise InvalidFile(f"{filename!r} is text in {encoding}; save it as UTF-8 (in Excel: CSV UTF-8), or {command}")
    if start.startswith(b"PK"):
        _refuse_other_zip(path, filename)


def _wide_encoding(start: bytes) -> str | None:
    """The encoding of a text whose characters are two or four bytes each, by its byte-order mark, or by where its NULs are."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    letters = start[:_LEAST_LETTERS]
    if len(letters) == _LEAST_LETTERS and letters.isascii():
        for first, encoding in ((0, "UTF-16BE"), (1, "UTF-16LE")):
            if not any(letters[first::2]) and all(letters[1 - first :: 2]):
                return encoding
    return None


def _refuse_other_zip(path: Path, filename: str) -> None:
    try:
        with zipfile.ZipFile(path) as opened:
            names = opened.namelist()
            kind = opened.read("mimetype")[:100] if "mimetype" in names and opened.getinfo("mimetype").file_size < 100 else b""
    except (*DAMAGE, OSError):
        return
    if "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names):
        raise InvalidFile(f"{filename!r} is an Excel workbook, which is not read; {_AS_CSV}")
    if kind == b"application/vnd.oasis.opendocument.spreadsheet":
        raise InvalidFile(f"{filename!r} is an OpenDocument sheet, which is not read; {_AS_CSV}")
    files = [name for name in names if not name.endswith(("/", "\\")) and not is_of_system(PurePosixPath(name))]
    if files and all(PurePosixPath(name).suffix.lower() in _DATA_SUFFIXES for name in files):
        shown = ", ".join(repr(name)[:100] for name in files[:5])
        raise InvalidFile(f"{filename!r} is a zip of {shown}; unpack it and send one file of rows, as it is")
