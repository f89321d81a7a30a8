"""Disks that fill up, and a store that is away.

As root each disk is a file system of its own, in memory; without root disks cannot be filled, and those faults are left out.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIECE_BYTES = 2**20


class Disk:
    """A folder that may be a file system of its own."""

    def __init__(self, folder: Path, *, is_own: bool) -> None:
        self.folder, self.is_own = folder, is_own

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free inside the block."""
        assert self.is_own, "a file system that others use is not to be filled"
        filler = self.folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * _PIECE_BYTES):
                pass
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def disk(folder: Path, *, mebibytes: int) -> Iterator[Disk]:
    """A disk of this size at ``folder``."""
    folder.mkdir()
    options = f"size={mebibytes}m,mode=0711"
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "stillhouse", folder], check=False, capture_output=True
        ).returncode
    )
    try:
        yield Disk(folder, is_own=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """A folder that is frozen inside the block: its files are pipes that nobody writes, and whoever opens one waits."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    aside = [path.rename(path.with_name(f"{path.name}.aside")) for path in files]
    for path in files:
        os.mkfifo(path)
    try:
        yield
    finally:
        for path, real in zip(files, aside, strict=True):
            writer = os.open(path, os.O_RDWR)
            real.replace(path)
            os.close(writer)  # which lets go whoever waits


class AwayStore:
    """The folder of the store, which can be away. ``strays`` is what was written while it was, into the folder in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.strays = folder, list[str]()
        folder.mkdir()

    @contextmanager
    def away(self, *, leaving_an_empty_folder: bool) -> Iterator[None]:
        """It is not there inside the block: a mount that dropped, which may leave its mount point."""
        aside = self.folder.with_name(f"{self.folder.name}.aside")
        self.folder.rename(aside)
        if leaving_an_empty_folder:
            self.folder.mkdir()
        try:
            yield
        finally:
            if self.folder.exists():
                self.strays += [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
                self.folder.rename(self.folder.with_name(f"{self.folder.name}.strays-{len(self.strays)}-{os.urandom(2).hex()}"))
            aside.rename(self.folder)
