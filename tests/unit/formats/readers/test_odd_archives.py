"""Archives of class folders as macOS, Windows and others pack them: read as they were meant, or refused with a remedy."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.spec.data import DatasetInfo
from tests.unit.formats.files import encoded, inspect, pixels, read, refusal, some_images, target
from tests.unit.test_archives import Files, tarred, zipped

IMAGES = some_images(4, 4, 4, seed=3)
PNGS = [encoded(image) for image in IMAGES]
CATS_AND_DOGS: Files = [("cat/1.png", PNGS[0]), ("cat/2.png", PNGS[1]), ("dog/1.png", PNGS[2]), ("dog/2.png", PNGS[3])]


def stored(folder: Path, content: bytes) -> Path:
    path = folder / "a.zip"
    path.write_bytes(content)
    return path


def warned(info: DatasetInfo) -> dict[str, str]:
    return {warning.code: warning.message for warning in info.warnings}


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    ["__MACOSX/cat/._1.png", "cat/.DS_Store", "cat/._1.png", "cat/Thumbs.db", "DESKTOP.INI", "dog/ehthumbs.db", "Icon\r"],
)
def test_the_files_that_a_system_adds_are_left_out_and_told(tmp_path: Path, pack: Callable[[Files], bytes], name: str) -> None:
    path = stored(tmp_path, pack([*CATS_AND_DOGS, (name, b"x")]))
    info = inspect(path)
    assert (info.classes, info.splits) == (["cat", "dog"], {"train": 4})
    assert warned(info) == {"files_skipped": f"1 hidden files of the archive are left out: {name!r}"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_folders_of_one_name_in_two_forms_of_unicode_are_one_class(tmp_path: Path, pack: Callable[[Files], bytes]) -> None:
    files = [("caf\u00e9/1.png", PNGS[0]), ("cafe\u0301/2.png", PNGS[1]), ("tea/1.png", PNGS[2])]
    path = stored(tmp_path, pack(files))
    info = inspect(path)
    assert (info.classes, info.class_counts, info.warnings) == (["caf\u00e9", "tea"], {"train": [2, 1]}, [])


def test_two_forms_of_one_name_are_a_lone_folder(tmp_path: Path) -> None:
    info = inspect(stored(tmp_path, zipped([("caf\u00e9/1.png", PNGS[0]), ("cafe\u0301/2.png", PNGS[1])])))
    assert list(warned(info)) == ["lone_folder", "unlabelled"]


@pytest.mark.parametrize("root", ["", "data\\", "C:\\data\\"])
def test_paths_of_windows_are_read_as_folders(tmp_path: Path, root: str) -> None:
    files = [(f"{root}train\\{name.replace('/', chr(92))}", content) for name, content in CATS_AND_DOGS]
    path = stored(tmp_path, zipped([(f"{root}train\\", b""), *files, (f"{root}test\\cat\\1.png", PNGS[0])]))
    arrays = read(path)
    assert (arrays.classes, target(arrays.splits["train"])) == ({"label": ["cat", "dog"]}, [0, 0, 1, 1])
    np.testing.assert_array_equal(pixels(arrays.splits["train"])[:, 0], IMAGES)
    assert len(pixels(arrays.splits["test"])) == 1


@pytest.mark.parametrize("name", ["..\\1.png", "\\1.png", "cat\\..\\..\\1.png"])
def test_paths_of_windows_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    assert "a path that leads out of it" in refusal(stored(tmp_path, zipped([(name, PNGS[0])])))


def without_mark(files: Files, *, encoding: str) -> bytes:
    """A zip whose names have that encoding, which it does not say."""
    content = zipped([(name.replace("é", "__" if encoding == "utf-8" else "_"), data) for name, data in files])
    return content.replace(b"caf__" if encoding == "utf-8" else b"caf_", "café".encode(encoding))


def test_names_of_a_zip_are_read_as_utf_8_without_the_mark_that_macos_leaves_away(tmp_path: Path) -> None:
    info = inspect(stored(tmp_path, without_mark([("café/1.png", PNGS[0]), ("tea/1.png", PNGS[1])], encoding="utf-8")))
    assert (info.classes, info.warnings) == (["café", "tea"], [])


def test_names_of_a_zip_whose_encoding_nothing_says_are_told(tmp_path: Path) -> None:
    info = inspect(stored(tmp_path, without_mark([("café/1.png", PNGS[0]), ("tea/1.png", PNGS[1])], encoding="cp437")))
    assert info.classes == ["café", "tea"]
    assert "they are read as code page 437, 'café/1.png'; if that is not what it is called" in warned(info)["names_uncertain"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_class_folders_without_a_file_are_told(tmp_path: Path, kind: str) -> None:
    content = zipped([("bird/", b""), ("cat/", b""), ("fish/salmon/", b""), (".git/", b""), *CATS_AND_DOGS])
    if kind == "tar":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in ("bird", "cat", "fish/salmon", ".git"):
                folder = tarfile.TarInfo(name)
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            for name, data in CATS_AND_DOGS:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        content = buffer.getvalue()
    info = inspect(stored(tmp_path, content))
    assert info.classes == ["cat", "dog"]
    words = "2 folders of the archive hold no file, and are no classes: 'bird', 'fish/salmon'"
    assert warned(info) == {"folder_without_files": words}


def test_an_encrypted_member_is_refused_by_its_name(tmp_path: Path) -> None:
    content = bytearray(zipped(CATS_AND_DOGS, compression=zipfile.ZIP_STORED))
    at = content.rindex(b"PK\x01\x02", 0, content.index(b"dog/1.png", content.index(b"PK\x01\x02")))
    content[at + 8] |= 1  # the flag of the third member
    assert "'dog/1.png' in the zip is encrypted; pack it without a password" in refusal(stored(tmp_path, bytes(content)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_is_refused_by_its_name(tmp_path: Path, kind: bytes) -> None:
    assert "'dog/3.png', a link or a device" in refusal(stored(tmp_path, tarred(CATS_AND_DOGS, others=[("dog/3.png", kind)])))


def test_folders_two_deep_of_which_none_is_a_training_split_are_refused(tmp_path: Path) -> None:
    files = [(f"{group}/{name}", content) for group in ("pets", "wild") for name, content in CATS_AND_DOGS]
    words = refusal(stored(tmp_path, zipped(files)))
    assert "two folders deep below 'pets', 'wild', which would be splits, and none is 'train'" in words
