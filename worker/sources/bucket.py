"""What a bucket holds, as its listing tells it: the revision of a file or of a folder in it, which a process of its own finds."""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import fsspec

from service.error_numbers import is_machines_number
from service.errors import InvalidFile
from worker.sources.own_process import answer

_CREDENTIALS = "Give the worker AWS's own variables or a role that may read it, or correct the bucket's name."
_OF_THE_BUCKET = {errno.EIO, errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE}
"""Numbers by which a bucket's own errors are told."""


def find_revision(request: dict[str, Any]) -> list[Any]:
    """Answers the request of :func:`worker.sources.remote_data.resolve_data`."""
    source = request["source"]
    try:
        return ["revision", digest(listed(*fsspec.url_to_fs(source)))]
    except Exception as error:  # noqa: BLE001 - what it is, its answer tells
        return told(source, error)


def listed(system: Any, path: str) -> dict[str, dict[str, Any]]:
    """What is told of each file, by its path; of a folder all in it."""
    info = system.info(path)
    found = {path: info} if info["type"] == "file" else system.find(path, detail=True)
    return {name: each for name, each in sorted(found.items()) if each["type"] == "file" and not name.endswith("/")}


def digest(found: Mapping[str, dict[str, Any]]) -> str:
    """What is another once a file is written anew."""
    known = [(name, info["size"], str(info.get("ETag") or info.get("LastModified"))) for name, info in found.items()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def told(source: str, error: Exception, *, read_errors: tuple[type[Exception], ...] = ()) -> list[Any]:
    """The answer for an error of the libraries, by what it was raised from; ``read_errors`` are those of broken files."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    refused = f"{source} cannot be fetched: "
    for each in causes:
        match each:
            case InvalidFile():
                return ["invalid", each.detail]
            case ImportError():
                return ["absent", f"{refused}the worker has no s3fs.", "Install its extra: pip install 'stillhouse[s3]'."]
            case FileNotFoundError():
                return ["refused", f"{refused}there is no such file or folder.", "Correct the path, or the bucket's name."]
            case PermissionError():
                return ["refused", f"{refused}the bucket refuses it to the worker.", _CREDENTIALS]
            case OSError() if each.errno is not None and is_machines_number(each.errno) and each.errno not in _OF_THE_BUCKET:
                return ["machine", each.errno, each.strerror or ""]
        if type(each).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            return ["refused", f"{refused}the worker has no credentials for it.", _CREDENTIALS]
    text = re.sub(r"[?&=]\S+", "…", " ".join(str(error).split()))[:300]
    words = f"{type(error).__name__}: {text}"
    if any(isinstance(each, read_errors) for each in causes):
        return ["invalid", f"its rows cannot be read ({words}): correct the files"]
    return ["away", f"{refused}the bucket does not answer as it should ({words}).", "See whether the worker reaches it."]


if __name__ == "__main__":
    answer(find_revision)
