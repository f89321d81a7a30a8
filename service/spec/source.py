"""Sources of datasets and networks: ``kind:name``, such as ``builtin:digits`` or ``job:job_01…``."""

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

DATASET_KINDS = ("builtin", "dataset", "file", "hub", "s3")
REMOTE_KINDS = ("hub", "s3")
"""Of data that workers read, and the API does not."""
NETWORK_KINDS = ("job", "model", "hub", "file")
TEACHER_PART = "/teacher"
"""The end of ``job:ID/teacher``, the teacher that a job trained."""
_HUB = re.compile(r"hub:(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_HUB_LENGTH = 200
_BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<path>.*))?", re.DOTALL)
_NOT_IN_A_PATH = re.compile(r"[\0-\x1f\x7f*?\[\]{}#\\]|::")
"""What file systems read as a pattern, a version or a chain of them rather than as a name."""
_MOST_PATH_BYTES = 1024
_CONFIG = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)
_HANDLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MODEL_ID = "model_"
_MODEL_NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


class Source(NamedTuple):
    """Kind and name of a source."""

    kind: str
    name: str


class HubData(NamedTuple):
    """A dataset of the Hub."""

    repository: str
    revision: str | None
    config: str | None

    @property
    def source(self) -> str:
        """``hub:REPO[@REVISION]``, without the config."""
        return f"hub:{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


class BucketData(NamedTuple):
    """A file or a folder in a bucket."""

    bucket: str
    parts: tuple[str, ...]
    """Of the path."""

    def is_under(self, prefix: "BucketData") -> bool:
        """Whether it is the prefix, or lies in it as a folder."""
        return self.bucket == prefix.bucket and self.parts[: len(prefix.parts)] == prefix.parts


class NetworkSource(NamedTuple):
    """A network that exists, or that a job is still to train."""

    kind: str
    name: str
    """Of a job or a model its id, or a model's name; of the Hub ``REPO[@REVISION]``; of a folder its path."""
    part: Literal["student", "teacher"] = "student"
    """Of a job: which of its networks."""


def split_source(text: str) -> Source:
    """Splits ``kind:name``; a word with no colon is a kind with an empty name (``train``, ``random``)."""
    kind, _, name = text.partition(":")
    return Source(kind, name)


def split_network(text: str) -> NetworkSource:
    """Splits the source of a network; a word with no colon is a kind with an empty name."""
    kind, name = split_source(text)
    if kind == "job" and name.endswith(TEACHER_PART):
        return NetworkSource(kind, name.removesuffix(TEACHER_PART), "teacher")
    return NetworkSource(kind, name)


def is_given(text: str) -> bool:
    """Whether a network comes from elsewhere, rather than being built by its job."""
    return split_source(text).kind in NETWORK_KINDS


def split_hub(source: str) -> tuple[str, str | None]:
    """Splits ``hub:REPO[@REVISION]`` into repository and revision. Raises ValueError for what is no name on the Hub."""
    found = _HUB.fullmatch(source)
    refused = "--" in source or ".." in source or source.endswith((".", "-", "/"))
    if found is None or refused or len(source) > _HUB_LENGTH:
        raise ValueError(f"{source!r} names nothing on the Hub: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    return found["repository"], found["revision"]


def split_hub_data(source: str) -> HubData:
    """Splits ``hub:REPO[@REVISION][:CONFIG]``. Raises ValueError for what is no dataset on the Hub."""
    repository, has_config, config = source.removeprefix("hub:").partition(":")
    if has_config and not _CONFIG.fullmatch(config):
        raise ValueError(f"{source!r} names no config: write hub:OWNER/NAME:CONFIG or hub:OWNER/NAME@REVISION:CONFIG")
    return HubData(*split_hub(f"hub:{repository}"), config if has_config else None)


def split_bucket(source: str) -> BucketData:
    """Splits ``s3://BUCKET[/PATH]``. Raises ValueError for what is none, or has another meaning to a file system."""
    found = _BUCKET.fullmatch(source)
    path = "" if found is None else found["path"] or ""
    parts = path.removesuffix("/").split("/") if path else []
    refused = _NOT_IN_A_PATH.search(path) or {"", ".", ".."} & set(parts) or len(path.encode()) > _MOST_PATH_BYTES
    if found is None or refused:
        raise ValueError(f"{source!r} names nothing in a bucket: write s3://BUCKET/PATH, of a file or of a folder of shards")
    return BucketData(found["bucket"], tuple(parts))


def is_remote(source: str | None) -> bool:
    """Whether it names data that workers read, and the API does not."""
    return source is not None and split_source(source).kind in REMOTE_KINDS


def _check(text: str, kinds: tuple[str, ...], words: tuple[str, ...] = ()) -> str:
    kind, name = split_source(text)
    if text in words or (kind in kinds and name):
        return text
    allowed = [*words, *(f"{kind}:{'//' if kind == 's3' else ''}…" for kind in kinds)]
    raise ValueError(f"{text!r} is not a source; write one of {', '.join(allowed)}")


def _network(text: str, words: tuple[str, ...]) -> str:
    kind, name, _ = split_network(_check(text, NETWORK_KINDS, words))
    match kind:
        case "hub":
            split_hub(text)
        case "job" if not _MODEL_NAME.fullmatch(name):
            raise ValueError(f"{text!r} names no job: write job:ID for its student, or job:ID{TEACHER_PART} for its teacher")
        case "model" if not _MODEL_NAME.fullmatch(name):
            raise ValueError(f"{text!r} names no model: write model:ID, or model:NAME of letters, digits, '_', '-' and '.'")
        case "file" if "\0" in name:
            raise ValueError(f"{text!r} is no path: write file:FOLDER")
    return text


def _dataset_source(text: str) -> str:
    match split_source(_check(text, DATASET_KINDS)).kind:
        case "hub":
            split_hub_data(text)
        case "s3" if not split_bucket(text).parts:
            raise ValueError(f"{text!r} is a whole bucket: name a file or a folder in it")
    return text


def _teacher_source(text: str) -> str:
    return _network(text, ("train",))


def _student_source(text: str) -> str:
    return _network(text, ("random", "teacher-layers"))


def _handle(text: str) -> str:
    if not _HANDLE.fullmatch(text) or text.startswith(_MODEL_ID):
        raise ValueError(
            f"{text!r} cannot stand in a spec: write at most 63 small letters, digits, '.', '_' and '-', and no {_MODEL_ID} first"
        )
    return text


ModelHandle = Annotated[str, AfterValidator(_handle)]
"""What a team calls a model in its specs."""
DatasetSource = Annotated[str, AfterValidator(_dataset_source)]
TeacherSource = Annotated[str, AfterValidator(_teacher_source)]
StudentSource = Annotated[str, AfterValidator(_student_source)]
