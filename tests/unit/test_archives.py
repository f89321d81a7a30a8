"""Archives made to leave their folder, to fill the disk or the memory, or to break what reads them."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from service.archives import Limits, unpack
from service.errors import InvalidFile

MIB = 2**20
LIMITS = Limits(max_bytes=1000 * MIB, max_files=20)
Files = Sequence[tuple[str, bytes]]
FILES: Files = [("m/config.json", b'{"a": 1}' * 50), ("m/deep/er/x.txt", bytes(random.Random(0).randbytes(3000)))]


def zipped(files: Files, *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files, *, compress: Callable[[bytes], bytes] = bytes, others: Files = ()) -> bytes:
    """A tar, with ``others``, names and types, behind its files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind in others:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "config.json"
            archive.addfile(member)
    return compress(buffer.getvalue())


def raw_tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Members as they are, with sizes that may be lies."""
    return b"".join(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512) for member, content in members)


def member(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made


def unpacked(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    """What comes out, by the paths that are told."""
    folder = tmp_path / "jail" / "folder"
    folder.mkdir(parents=True)
    (tmp_path / "upload").write_bytes(content)
    root, paths = unpack(tmp_path / "upload", folder, filename="upload.zip", limits=limits)
    return {path.as_posix(): (root / path).read_bytes() for path in paths}


# ---------------------------------------------------------------- what is taken


COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
COMPRESSORS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress]
HIDDEN: Files = [("m/.DS_Store", b"x"), ("m/.git/config", b"x"), ("__MACOSX/m/._config.json", b"x")]
TAKEN = {
    **{f"zip {number}": zipped(FILES, compression=number) for number in COMPRESSIONS},
    **{f"tar {compress.__module__}": tarred(FILES, compress=compress) for compress in COMPRESSORS},
    "zip with more": zipped([("m/", b""), *FILES, *HIDDEN]),
    "tar with more": tarred([*HIDDEN, *FILES], others=[("m", tarfile.DIRTYPE)]),
    "tar of .": tarred([(f"./{name}", content) for name, content in FILES]),
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN.keys())
def test_the_files_come_out_without_their_folder_and_hidden_ones_not_at_all(tmp_path: Path, content: bytes) -> None:
    assert unpacked(tmp_path, content) == {name.removeprefix("m/"): data for name, data in FILES}


def test_files_of_several_folders_keep_them(tmp_path: Path) -> None:
    files = [("a/x", b"1"), ("b/x", b"2"), ("x", b"3")]
    assert unpacked(tmp_path, zipped(files)) == dict(files)


def test_what_compresses_well_is_no_bomb_while_it_is_small(tmp_path: Path) -> None:
    zeros = bytes(60 * MIB)
    assert unpacked(tmp_path, zipped([("x", zeros)])) == {"x": zeros}


def test_a_tar_of_just_the_allowed_size_is_taken(tmp_path: Path) -> None:
    content = tarred([("x", bytes(MIB)), ("y", bytes(3))])
    assert unpacked(tmp_path, content, Limits(max_bytes=len(content), max_files=2)) == {"x": bytes(MIB), "y": bytes(3)}


# ---------------------------------------------------------------- ways out


@pytest.mark.parametrize(
    "name", ["../x", "m/../../x", "/x", "m/..", "..", "a\\..\\x", "C:\\x", "C:/x", "~/x", "m/x\n", "ä", "a b", "-rf", "m//../x"]
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_that_is_no_plain_path_is_refused(tmp_path: Path, pack: Callable[[Files], bytes], name: str) -> None:
    with pytest.raises(InvalidFile, match=r"upload\.zip"):
        unpacked(tmp_path, pack([("m/config.json", b"{}"), (name, b"x")]))
    assert [path for path in tmp_path.rglob("*") if path.name not in {"upload", "jail", "folder", "m", "config.json"}] == []
    assert not (Path.home() / "x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"])
def test_what_is_no_plain_file_in_a_tar_is_not_made(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InvalidFile, match="'x', a link or a device"):
        unpacked(tmp_path, tarred([("config.json", b"{}")], others=[("x", kind)]))
    assert not os.path.lexists(tmp_path / "jail/folder/x")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_what_is_no_plain_file_in_a_zip_is_not_made(tmp_path: Path, kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("x")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InvalidFile, match="'x', a link or a device"):
        unpacked(tmp_path, buffer.getvalue())
    assert not os.path.lexists(tmp_path / "jail/folder/x")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "files",
    [
        [("m/x", b"first"), ("m/x", b"second")],
        [("m/x", b"first"), ("m/./x", b"second")],
        [("m/x", b"first"), ("m/x/y", b"second")],
        [("m/x", b"first"), ("m/x/y/z", b"second")],
        [("m/x/y", b"first"), ("m/x", b"second")],
    ],
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_that_is_there_already_is_refused(tmp_path: Path, pack: Callable[[Files], bytes], files: Files) -> None:
    with pytest.raises(InvalidFile, match="twice"):
        unpacked(tmp_path, pack(files))


@pytest.mark.parametrize("name", ["a/" * 3000 + "x", "a/" * 30_000 + "x", "/".join(["b" * 100] * 6)])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_path_longer_than_any_model_has_is_refused(tmp_path: Path, pack: Callable[[Files], bytes], name: str) -> None:
    with pytest.raises(InvalidFile, match=f"a path of {len(name)} characters"):
        unpacked(tmp_path, pack([(name, b"x")]))


# ---------------------------------------------------------------- bombs


def zeros_in(compress: Callable[[bytes], bytes]) -> bytes:
    return tarred([("x", bytes(80 * MIB))], compress=compress)


def hidden_zeros() -> bytes:
    return gzip.compress(raw_tar((member(".x", size=80 * MIB), bytes(80 * MIB)), (member("y"), b"")))


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: zeros_in(gzip.compress),
    "bzip2": lambda: zeros_in(bz2.compress),
    "xz": lambda: zeros_in(lzma.compress),
    "many small ones": lambda: zipped([(f"{number}", bytes(10 * MIB)) for number in range(8)]),
    "what is skipped": hidden_zeros,
    "a skipped lie of a terabyte": lambda: raw_tar((member(".x", size=2**40), b"x"), (member("y"), b"")),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path, name: str) -> None:
    content = BOMBS[name]()
    with pytest.raises(InvalidFile, match="far more than its own size"):
        unpacked(tmp_path, content)
    written = sum(path.stat().st_size for path in (tmp_path / "jail").rglob("*") if path.is_file())
    assert written <= 64 * MIB


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_is_not_read_into_memory_whatever_its_size(tmp_path: Path, kind: bytes) -> None:
    size = 50 * MIB
    content = gzip.compress(raw_tar((member("x", size=size, kind=kind), bytes(size)), (member("y"), b"")))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFile, match="header"):
            unpacked(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < size // 5
    finally:
        tracemalloc.stop()


def test_a_chain_of_headers_ends(tmp_path: Path) -> None:
    long_name = (member("x", size=4, kind=tarfile.GNUTYPE_LONGNAME), b"abc\0")
    with pytest.raises(InvalidFile, match="damaged"):
        unpacked(tmp_path, raw_tar(*[long_name] * 20_000, (member("y"), b"")))


@pytest.mark.parametrize(("pattern", "count"), [("{}", 21), (".{}", 201), ("{}/", 201)], ids=["files", "hidden", "folders"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_more_entries_than_a_model_has_are_refused(
    tmp_path: Path, pack: Callable[[Files], bytes], pattern: str, count: int
) -> None:
    names = [pattern.format(number) for number in range(count)]
    if pack is tarred and pattern.endswith("/"):
        content = tarred([], others=[(name, tarfile.DIRTYPE) for name in names])
    else:
        content = pack([(name, b"") for name in names])
    with pytest.raises(InvalidFile, match="more than 20 files"):
        unpacked(tmp_path, content)


def test_no_more_than_the_service_takes_is_unpacked(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(MIB)
    with pytest.raises(InvalidFile, match="far more"):
        unpacked(tmp_path, zipped([("x", noise)]), Limits(max_bytes=MIB - 1, max_files=1))


# ---------------------------------------------------------------- damage


SEEDS = [
    *(zipped([*FILES, ("m/é", b"q")], compression=number) for number in COMPRESSIONS),
    *(tarred([*FILES, ("m/" + "y" * 150, b"1")], compress=compress) for compress in COMPRESSORS),
]


def damaged(chance: random.Random, content: bytes) -> bytes:
    """A few bytes changed, cut off or put in, half of the time near the end, where a zip has its list."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        place = chance.randrange(0 if chance.random() < 0.5 else max(0, len(data) - 400), len(data))
        match chance.randrange(6):
            case 0:
                del data[place + 1 :]
            case 1:
                data[place:place] = chance.randbytes(chance.randrange(1, 30))
            case _:
                data[place] = chance.choice([0, 1, 255, chance.randrange(256)])
    return bytes(data)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_a_damaged_archive_is_refused_or_read_and_nothing_else(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    num_read = 0
    for number in range(250):
        with suppress(InvalidFile):
            unpacked(tmp_path / str(number), damaged(chance, SEEDS[seed]))
            num_read += 1
    assert num_read < 250 - 20


def misplaced_zip(*, start: int, disks: int) -> bytes:
    """A zip of more than 4 GiB, by what its end says: where its list starts, and how many disks it is on."""
    content = zipped([("abc", b"x")])
    end = content.rindex(b"PK\5\6")
    record = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, 49, start)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, end, disks)
    return content[:end] + record + locator + content[end : end + 8] + b"\xff" * 12 + content[end + 20 :]


def nameless_zip() -> bytes:
    """A zip whose list says that the name's three bytes are something else."""
    content = bytearray(zipped([("abc", b"x")]))
    entry = content.rindex(b"PK\1\2")
    content[entry + 28 : entry + 32] = struct.pack("<HH", 0, 3)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        misplaced_zip(start=2**63 - 1, disks=1),
        misplaced_zip(start=2**64 - 1, disks=1),
        misplaced_zip(start=0, disks=2),
        nameless_zip(),
    ],
    ids=["beyond the file", "beyond any file", "several disks", "no name"],
)
def test_a_zip_whose_list_makes_no_sense_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidFile, match=r"'upload\.zip' is no zip or tar, or it is damaged"):
        unpacked(tmp_path, content)


@pytest.mark.parametrize("compress", COMPRESSORS[1:])
def test_damage_in_the_middle_of_a_compressed_tar_is_told(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    content = bytearray(tarred([("x", random.Random(0).randbytes(100_000))], compress=compress))
    content[len(content) // 2 : len(content) // 2 + 50] = b"damage" * 9
    with pytest.raises(InvalidFile, match=r"'upload\.zip' is no zip or tar, or it is damaged"):
        unpacked(tmp_path, bytes(content))


def test_a_disk_that_cannot_be_written_is_not_the_archives_fault(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(zipped(FILES))
    with pytest.raises(OSError, match="too long"):
        unpack(tmp_path / "upload", tmp_path / ("x" * 300), filename="upload.zip", limits=LIMITS)
