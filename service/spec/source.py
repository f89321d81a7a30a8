"""Sources of datasets and networks: ``kind:name``, such as ``builtin:digits`` or ``job:job_01…``."""

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

DATASET_KINDS = ("builtin", "dataset", "file")
NETWORK_KINDS = ("job", "model", "hub")
_HUB = re.compile(r"hub:(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_HUB_LENGTH = 200


class Source(NamedTuple):
    """Kind and name of a source."""

    kind: str
    name: str


def split_source(text: str) -> Source:
    """Splits ``kind:name``; a word with no colon is a kind with an empty name (``train``, ``random``)."""
    kind, _, name = text.partition(":")
    return Source(kind, name)


def split_hub(source: str) -> tuple[str, str | None]:
    """Splits ``hub:REPO[@REVISION]`` into repository and revision. Raises ValueError for what is no name on the Hub."""
    found = _HUB.fullmatch(source)
    refused = "--" in source or ".." in source or source.endswith((".", "-", "/"))
    if found is None or refused or len(source) > _HUB_LENGTH:
        raise ValueError(f"{source!r} names nothing on the Hub: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return found["repository"], found["revision"]


def _check(text: str, kinds: tuple[str, ...], words: tuple[str, ...] = ()) -> str:
    kind, name = split_source(text)
    if text in words or (kind in kinds and name):
        return text
    allowed = [*words, *(f"{kind}:…" for kind in kinds)]
    raise ValueError(f"{text!r} is not a source; write one of {', '.join(allowed)}")


def _dataset_source(text: str) -> str:
    return _check(text, DATASET_KINDS)


def _teacher_source(text: str) -> str:
    source = _check(text, NETWORK_KINDS, ("train",))
    if split_source(source).kind == "hub":
        split_hub(source)
    return source


DatasetSource = Annotated[str, AfterValidator(_dataset_source)]
TeacherSource = Annotated[str, AfterValidator(_teacher_source)]
