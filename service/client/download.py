"""Downloads of artifacts: a file appears under its name only when it is complete and has the recorded SHA-256."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx

from service.client.address import address
from service.client.errors import ClientError, CorruptDownload
from service.client.resources import Artifact
from service.client.transport import Transport

OnBytes = Callable[[Artifact, int], None]
"""Called with an artifact and the number of its bytes that have arrived."""
_CHUNK_BYTES = 2**20
_READ_TIMEOUT_SECONDS = 60.0


def chosen(artifacts: Sequence[Artifact], names: Sequence[str] | None) -> list[Artifact]:
    """Selects artifacts by name; the name of a folder selects everything in it.

    Raises:
        ClientError: a name matches no artifact.
    """
    if names is None:
        return list(artifacts)
    picked: dict[str, Artifact] = {}
    for name in names:
        wanted = name.rstrip("/")
        matches = [artifact for artifact in artifacts if artifact.name == wanted or artifact.name.startswith(wanted + "/")]
        if not matches:
            raise ClientError(f"there is no artifact {name!r}; there are: {', '.join(a.name for a in artifacts) or 'none'}")
        picked.update({artifact.name: artifact for artifact in matches})
    return list(picked.values())


def fetch(transport: Transport, *, job_id: str, artifact: Artifact, folder: Path, on_bytes: OnBytes) -> Path:
    """Downloads one artifact into ``folder``. Resumes an interrupted download; skips a file that is already complete.

    Raises:
        CorruptDownload: size or SHA-256 differ from those that the service recorded.
    """
    target = _inside(folder, artifact.name)
    if target.is_file() and target.stat().st_size == artifact.size and _sha256(target).hexdigest() == artifact.sha256:
        on_bytes(artifact, artifact.size)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{artifact.sha256[:16]}.part")
    digest = _fetch_bytes(transport, address("jobs", job_id, "artifacts", quote(artifact.name)), artifact, partial, on_bytes)
    if partial.stat().st_size != artifact.size or digest != artifact.sha256:
        partial.unlink()
        raise CorruptDownload(f"{artifact.name}: the bytes that came are not those that the service recorded; download it again")
    partial.replace(target)
    return target


def _fetch_bytes(transport: Transport, path: str, artifact: Artifact, partial: Path, on_bytes: OnBytes) -> str:
    digest = _sha256(partial) if partial.exists() else hashlib.sha256()
    num_bytes = partial.stat().st_size if partial.exists() else 0
    for retry in transport.retries():
        headers = {"Accept-Encoding": "identity"}
        if num_bytes == artifact.size and partial.exists():
            break
        if num_bytes:
            headers |= {"Range": f"bytes={num_bytes}-", "If-Range": f'"{artifact.sha256}"'}
        try:
            with transport.stream(path, headers=headers, read_timeout_seconds=_READ_TIMEOUT_SECONDS) as response:
                if response.status_code != httpx.codes.PARTIAL_CONTENT:
                    digest, num_bytes = hashlib.sha256(), 0
                with partial.open("ab" if num_bytes else "wb") as file:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        file.write(chunk)
                        digest.update(chunk)
                        num_bytes += len(chunk)
                        on_bytes(artifact, num_bytes)
                        retry.reset()
                break
        except httpx.TransportError as error:
            # Closing the file flushed its buffer, so the digest is computed again from the file.
            digest, num_bytes = (_sha256(partial), partial.stat().st_size) if partial.exists() else (hashlib.sha256(), 0)
            retry.after_break(transport.as_unreachable(error), may_wait=transport.has_answered)
    return digest.hexdigest()


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise ClientError(f"the service names an artifact {name!r}, which would lie outside of {folder}")
    return folder.joinpath(*parts)


def _sha256(path: Path) -> "hashlib._Hash":
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")
