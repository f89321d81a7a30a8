"""Uploads a model's folder: file by file, in pieces, on from wherever one broke off, and nothing that the service has already.

A run that was killed is gone on with by the same call: the service finds the upload by its files.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.client.address import address
from service.client.errors import ApiError, ClientError, Conflict, Unreachable
from service.client.transport import Transport

_PIECE_BYTES = 32 * 2**20
"""So much at most is sent again after a break."""
_ANSWER_SECONDS = 600.0
"""The service answers a file's last piece once it has stored the whole file."""
OnSent = Callable[[str, int, int], None]
"""Called with a file's name, how many of its bytes the service has, and its size."""


def upload_folder(transport: Transport, folder: Path, *, name: str, task: str | None, on_sent: OnSent) -> dict[str, Any]:
    """Returns the stored model as JSON.

    Raises:
        ApiError: the service refuses it.
        ClientError: there is no file in it.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    paths = {file: path for file, path in paths.items() if not any(part.startswith(".") for part in Path(file).parts)}
    if not paths:
        raise ClientError(f"there is no file in {folder}")
    files = [{"name": file, "size": path.stat().st_size, "sha256": _sha256(path)} for file, path in paths.items()]
    by_digest = {str(file["sha256"]): str(file["name"]) for file in files}
    body = {"name": name, "files": files} | ({"task": task} if task else {})
    for retry in transport.retries():
        upload = transport.request("POST", "/v1/model-uploads", json=body, repeatable=True).json()
        for digest in upload["missing"]:
            file = by_digest[digest]
            _send(transport, address("model-uploads", upload["id"], "files", digest), paths[file], file, on_sent)
        finish = address("model-uploads", upload["id"], "finish")
        try:
            made: dict[str, Any] = transport.request("POST", finish, repeatable=True, read_timeout_seconds=_ANSWER_SECONDS).json()
        except Conflict as error:  # what the service had of it has been removed since
            retry.after_break(Unreachable(str(error)), may_wait=True)
        else:
            return made
    raise AssertionError("the retries end by raising")


def _send(transport: Transport, place: str, path: Path, file: str, on_sent: OnSent) -> None:
    """Sends a file from where the service has it on."""
    size = path.stat().st_size
    for retry in transport.retries():
        sent = _offset(transport.request("HEAD", place, repeatable=True).headers)
        if sent >= size > 0:
            return
        try:
            with path.open("rb") as content:
                content.seek(sent)
                while True:
                    piece = content.read(_PIECE_BYTES)
                    if not piece and sent < size:
                        raise ClientError(f"{path} has become shorter while it was sent")
                    answer = transport.request(
                        "PUT",
                        place,
                        content=piece,
                        headers={"Upload-Offset": str(sent), "Content-Type": "application/octet-stream"},
                        repeatable=False,
                        read_timeout_seconds=_ANSWER_SECONDS,
                    )
                    sent = _offset(answer.headers)
                    retry.reset()
                    on_sent(file, sent, size)
                    if sent >= size:
                        return
        except Unreachable as error:
            retry.after_break(error, may_wait=transport.has_answered)
        except Conflict as error:  # an answer was lost
            retry.after_break(Unreachable(str(error)), may_wait=True)
        except ApiError as error:
            retry.after_problem(error)


def _offset(headers: Mapping[str, str]) -> int:
    return int(headers["Upload-Offset"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
