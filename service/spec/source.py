"""Where a dataset or a network comes from: ``kind:name``, such as ``builtin:digits`` or ``job:job_01…``."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator

DATASET_KINDS = ("builtin", "dataset", "file")
NETWORK_KINDS = ("job", "model")


class Source(NamedTuple):
    """A source string, taken apart."""

    kind: str
    name: str


def split_source(text: str) -> Source:
    """Takes ``kind:name`` apart; a word with no colon is a kind with an empty name (``train``, ``random``)."""
    kind, _, name = text.partition(":")
    return Source(kind, name)


def _check(text: str, kinds: tuple[str, ...], words: tuple[str, ...] = ()) -> str:
    kind, name = split_source(text)
    if text in words or (kind in kinds and name):
        return text
    allowed = [*words, *(f"{kind}:…" for kind in kinds)]
    raise ValueError(f"{text!r} is not a source; write one of {', '.join(allowed)}")


def _dataset_source(text: str) -> str:
    return _check(text, DATASET_KINDS)


def _teacher_source(text: str) -> str:
    return _check(text, NETWORK_KINDS, ("train",))


DatasetSource = Annotated[str, AfterValidator(_dataset_source)]
TeacherSource = Annotated[str, AfterValidator(_teacher_source)]
