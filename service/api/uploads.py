"""Receives uploads: a multipart form with one file, which is streamed to disk and hashed on the way, never held in memory."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import Services
from service.api.upload_form import UploadForm
from service.errors import FieldError, InvalidInput, InvalidRequest, Unavailable, UnsupportedMediaType
from service.part_errors import Meaning, meaning_of

_BATCH_BYTES = 2**20
_MAX_FIELD_BYTES = 2**16
INGEST_SECONDS = 300.0
LEAST_BYTES_PER_SECOND = 2**20
"""Of a store, and of a check, that does not hang."""
Stored = TypeVar("Stored")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A received form. The file exists as long as the folder that it was received into."""

    fields: dict[str, str]
    path: Path
    filename: str
    """The name that the client gave, without folders."""
    sha256: str
    size: int


async def receive(request: Request, services: Services, form: UploadForm, store: Callable[[Upload], Stored]) -> Stored:
    """Reads the form into a temporary folder, which ends with this call, and returns the result of ``store``, run in a thread.

    Raises:
        UnsupportedMediaType: the body is not a multipart form.
        InvalidRequest: the form is malformed or incomplete.
        InvalidInput: a part is missing, unknown, given twice or not printable UTF-8 text.
        Unavailable: there is no room for it, in the temporary folder or in the store, or the store is away.
    """
    with telling_what_is_away():
        await services.store_calls.run(services.store.ping)  # rather than after gigabytes
        parent = services.settings.scratch
        with TemporaryDirectory(prefix="stillhouse-upload-", dir=parent, ignore_cleanup_errors=True) as folder:
            upload = await _read_form(request, Path(folder), known_fields=frozenset(form.fields))
            limit_seconds = INGEST_SECONDS + upload.size / LEAST_BYTES_PER_SECOND
            return await services.ingests.run(partial(store, upload), limit_seconds=limit_seconds)


@contextmanager
def telling_what_is_away() -> Iterator[None]:
    """Raises Unavailable for an error of a store that is away, or of a disk that takes no file."""
    try:
        yield
    except OSError as error:
        if meaning_of(error) is not Meaning.AWAY:
            raise
        logger.warning("an upload cannot be kept: %s", error)
        reason = "the store is away" if error.errno is None else os.strerror(error.errno)
        raise Unavailable(f"the upload cannot be kept at this moment: {reason}", retry_after_seconds=60) from error


async def _read_form(request: Request, folder: Path, *, known_fields: frozenset[str]) -> Upload:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data":
        raise UnsupportedMediaType("send a multipart/form-data form: curl -F file=@data.npz -F name=… …", param="Content-Type")
    if not boundary:
        raise InvalidRequest("the Content-Type has no boundary: leave that header to your HTTP library", param="Content-Type")
    form = _Form(folder / "upload", known_fields=known_fields)
    try:
        with form.path.open("xb") as file:
            form.file = file
            parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
            batch = bytearray()
            async for chunk in request.stream():
                batch += chunk
                if len(batch) >= _BATCH_BYTES:
                    await run_in_threadpool(parser.write, bytes(batch))
                    batch.clear()
            await run_in_threadpool(parser.write, bytes(batch))
    except FormParserError as error:
        raise InvalidRequest(f"the form is damaged: {error}", param="body") from error
    return form.complete()


@dataclass
class _Form:
    """The state that the callbacks of the multipart parser fill."""

    path: Path
    known_fields: frozenset[str]
    file: IO[bytes] | None = None
    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    size: int = 0
    is_complete: bool = False
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _header_name: bytes = b""
    _header_value: bytes = b""
    _part: str = ""
    _is_file: bool = False
    _text: bytearray = field(default_factory=bytearray)
    _disposition: bytes = b""

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def complete(self) -> Upload:
        if not self.is_complete:
            raise InvalidRequest("the upload broke off: the form has no end", param="body")
        if self.filename is None:
            raise InvalidInput([FieldError(pointer="/file", message="the form needs a part 'file' with a file name")])
        return Upload(fields=self.fields, path=self.path, filename=self.filename, sha256=self._digest.hexdigest(), size=self.size)

    def _begin(self) -> None:
        self._disposition = b""
        self._text.clear()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = options.get(b"name", b"").decode(errors="replace")
        filename = options.get(b"filename")
        self._is_file = self._part == "file" and filename is not None
        if self._part != "file" and self._part not in self.known_fields:
            known = ", ".join(["file", *sorted(self.known_fields)])
            raise InvalidInput([FieldError(pointer=f"/{self._part:.80}", message=f"this part is unknown; a form has {known}")])
        if self._part in self.fields or (self._is_file and self.filename is not None):
            raise InvalidInput([FieldError(pointer=f"/{self._part}", message="this part is given twice")])
        if self._is_file and filename is not None:
            self.filename = _plain_filename(filename)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            assert self.file is not None
            piece = memoryview(data)[start:end]
            self.file.write(piece)
            self._digest.update(piece)
            self.size += end - start
            return
        self._text += data[start:end]
        if len(self._text) > _MAX_FIELD_BYTES:
            raise InvalidInput(
                [FieldError(pointer=f"/{self._part}", message=f"text parts have at most {_MAX_FIELD_BYTES} bytes")]
            )

    def _end_part(self) -> None:
        if self._is_file:
            return
        try:
            text = self._text.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput([FieldError(pointer=f"/{self._part}", message="this is no UTF-8 text")]) from error
        if not text.isprintable():
            raise InvalidInput([FieldError(pointer=f"/{self._part}", message="text parts have printable characters alone")])
        self.fields[self._part] = text

    def _end(self) -> None:
        self.is_complete = True


def _plain_filename(raw: bytes) -> str:
    name = raw.decode(errors="replace").replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in name if character.isprintable())[:200] or "upload"
