"""Archives read file by file: those that people pack, and those made to do harm."""

import bz2
import gzip
import lzma
import random
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from service.errors import InvalidFile
from service.formats.readers.members import open_members
from tests.unit.test_archives import member, raw_tar, tarred, zipped

MIB = 2**20
FILES = [("b/ä ö.txt", b"1"), ("a/x", bytes(random.Random(0).randbytes(3_000))), ("a-b/x", b""), ("c", b"22")]
IN_ORDER = ["a/x", "a-b/x", "b/ä ö.txt", "c"]
COMPRESSORS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]
TAKEN = {
    "zip stored": zipped(FILES, compression=zipfile.ZIP_STORED),
    "zip deflated": zipped(FILES),
    "zip with more": zipped([("a/", b""), *FILES, ("a/.hidden", b"x"), ("__MACOSX/a/._x", b"x")]),
    **{f"tar {compress.__module__}": tarred(FILES, compress=compress) for compress in COMPRESSORS},
    "tar of .": tarred([(f"./{name}", content) for name, content in FILES], others=[("./a", tarfile.DIRTYPE)]),
}


def contents(tmp_path: Path, archive: bytes, *, max_unpacked_bytes: int = 1_000 * MIB) -> dict[str, bytes]:
    path = tmp_path / "upload"
    path.write_bytes(archive)
    with open_members(path, max_unpacked_bytes=max_unpacked_bytes) as members:
        return {str(each): members.read(each) for each in members.paths}


def refusal(tmp_path: Path, archive: bytes, *, max_unpacked_bytes: int = 1_000 * MIB) -> str:
    with pytest.raises(InvalidFile) as caught:
        contents(tmp_path, archive, max_unpacked_bytes=max_unpacked_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
    return caught.value.detail


@pytest.mark.parametrize("archive", TAKEN.values(), ids=TAKEN.keys())
def test_the_files_come_in_the_order_of_their_paths_without_hidden_ones(tmp_path: Path, archive: bytes) -> None:
    found = contents(tmp_path, archive)
    assert found == dict(FILES)
    assert list(found) == IN_ORDER
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_an_archive_in_a_folder_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(tarred(FILES, compress=gzip.compress))
    tmp_path.chmod(0o500)
    try:
        with open_members(tmp_path / "upload", max_unpacked_bytes=MIB) as members:
            assert members.read(PurePosixPath("c")) == b"22"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a/..", "a\\x", "x" * 1_001])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_path_that_leads_out_or_goes_on_for_ever_is_refused(tmp_path: Path, pack: Callable[..., bytes], name: str) -> None:
    assert name[:200] in refusal(tmp_path, pack([("a/x", b""), (name, b"")])).replace("\\\\", "\\")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE])
def test_what_is_no_plain_file_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    assert "'x', a link or a device" in refusal(tmp_path, tarred([("a", b"")], others=[("x", kind)]))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_what_is_no_plain_file_in_a_zip_is_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive:
        made = zipfile.ZipInfo("x")
        made.external_attr = (kind | 0o644) << 16
        archive.writestr(made, b"/etc/passwd")
    assert "'x', a link or a device" in refusal(tmp_path, (tmp_path / "upload").read_bytes())


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    assert "'a/x' twice" in refusal(tmp_path, tarred([("a/x", b"1"), ("./a/x", b"2")]))


def test_more_than_may_be_unpacked_is_refused_by_what_is_declared(tmp_path: Path) -> None:
    for archive in (zipped([("a", bytes(MIB)), ("b", bytes(MIB))]), tarred([("a", bytes(MIB)), ("b", bytes(MIB))])):
        assert "2,097,152 bytes; at most 2,000,000 may be" in refusal(tmp_path, archive, max_unpacked_bytes=2_000_000)


def test_a_file_too_large_to_be_held_is_refused(tmp_path: Path) -> None:
    archive = raw_tar((member("a", size=2**30 + 1), b""))
    assert "1,073,741,825 bytes; at most" in refusal(tmp_path, archive)


def test_a_tar_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    archive = lzma.compress(tarred([("a", bytes(65 * MIB))]), preset=0)
    assert "far more than its own size" in refusal(tmp_path, archive)


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_said(tmp_path: Path) -> None:
    archive = bytearray(zipped([("a", bytes(50 * MIB))]))
    size = (50 * MIB).to_bytes(4, "little")
    while (at := archive.find(size)) >= 0:
        archive[at : at + 4] = (100).to_bytes(4, "little")
    tracemalloc.start()
    assert "cannot be read" in refusal(tmp_path, bytes(archive))
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


def test_a_rare_compression_is_refused(tmp_path: Path) -> None:
    assert "pack it with deflate" in refusal(tmp_path, zipped(FILES, compression=zipfile.ZIP_BZIP2))


def test_a_tar_that_lacks_its_end_is_refused_rather_than_read_in_part(tmp_path: Path) -> None:
    whole = raw_tar((member("a", size=1), b"1"), (member("b", size=1), b"2"))
    assert contents(tmp_path, whole + bytes(1024)) == {"a": b"1", "b": b"2"}
    assert "cut off" in refusal(tmp_path, whole)
    broken = bytearray(whole + bytes(1024))
    broken[1024] ^= 1  # the name in the second header, whose checksum no longer fits
    assert "damaged" in refusal(tmp_path, bytes(broken))


@pytest.mark.parametrize("archive", [b"PK\x03\x04", b"x" * 2_000, gzip.compress(b"x" * 2_000, mtime=0), b"\x1f\x8b\x08", b""])
def test_what_is_no_archive_is_refused(tmp_path: Path, archive: bytes) -> None:
    assert "no zip or tar, or it is damaged" in refusal(tmp_path, archive)


@pytest.mark.parametrize("whole", [TAKEN["zip deflated"], TAKEN["tar gzip"], TAKEN["tar builtins"]], ids=["zip", "tar.gz", "tar"])
def test_a_damaged_archive_is_refused_or_read_and_nothing_else_ever_happens(tmp_path: Path, whole: bytes) -> None:
    generator = random.Random(0)
    damaged = [whole[:length] for length in range(0, len(whole), 97)]
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[generator.randrange(len(whole))] ^= generator.randrange(1, 256)
        damaged.append(bytes(flipped))
    refused = 0
    for archive in damaged:
        try:
            contents(tmp_path, archive)
        except InvalidFile:
            refused += 1
    assert refused > len(damaged) / 10
