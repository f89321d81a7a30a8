"""Networks of llama.cpp, one ``.gguf`` file, as the plain folders that everything else reads.

Invariant: a file is converted once on a host by each version of what converts it, however many jobs use it at the same time, in a
process of its own, and stays as it is.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from service.errors import InvalidFile
from service.gguf_header import find_gguf
from worker.sources.cache import NetworkCache
from worker.sources.errors import SourceRefused
from worker.sources.own_process import call

_CONVERTERS = ("stillhouse", "gguf", "transformers", "tokenizers", "torch")
_CHUNK_BYTES = 2**24
_HINT = "Take another file of it, or the folder that it was made of."


@contextmanager
def plain_folder(folder: Path, *, source: str, cache: NetworkCache, on_poll: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The folder itself; of one that holds a ``.gguf`` file its conversion, which stays in the cache until the block ends.

    ``on_poll``, called several times a second meanwhile, may end a conversion by raising.

    Raises:
        SourceRefused: the file cannot be read, or the folder has several.
        OSError: this host cannot, for instance as its disk is full.
    """
    try:
        gguf = find_gguf(folder)
    except InvalidFile as error:
        raise _refused(source, error.detail) from error
    if gguf is None:
        yield folder
        return

    with cache.hold(
        _key(_sha256(gguf, on_poll)), partial(_convert, gguf, source=source, on_poll=on_poll), on_wait=on_poll
    ) as converted:
        yield converted


def _key(sha256: str) -> str:
    """What the cache has a conversion by: after an upgrade of what converts, another one."""
    return " ".join(["gguf", sha256, *(f"{name}={version(name)}" for name in _CONVERTERS)])


def _convert(gguf: Path, folder: Path, *, source: str, on_poll: Callable[[], None]) -> None:
    match call("worker.models.gguf_folder", {"gguf": str(gguf), "folder": str(folder)}, on_poll=on_poll):
        case ["done"], _:
            pass
        case ["refused", message], _:
            raise _refused(source, message)
        case ["machine", number, message], _:
            raise OSError(number, message)
        case _, exit_code:
            raise RuntimeError(f"the conversion of {source} ended with exit code {exit_code}")


def _refused(source: str, why: str) -> SourceRefused:
    return SourceRefused(f"{source} cannot be loaded: {why}", _HINT)


def _sha256(path: Path, on_poll: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_poll()
    return digest.hexdigest()
