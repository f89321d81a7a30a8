"""Address and key of the service: from arguments, else the environment, else ``connection.json`` in the data directory.

``stillhouse up`` writes that file, readable by its user alone, and leaves it: the key stays good for the next run.
"""

import os
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

CONNECTION_FILE = "connection.json"


class ClientSettings(BaseSettings):
    """The environment variables that a client reads."""

    model_config = SettingsConfigDict(
        env_prefix="STILLHOUSE_", env_ignore_empty=True, extra="ignore", use_attribute_docstrings=True
    )

    url: str = ""
    """``https://stillhouse.example.org``."""
    api_key: str = ""
    home: Path = Field(default_factory=lambda: Path.home() / ".stillhouse")
    """The data directory of ``stillhouse up``."""


class Connection(BaseModel):
    """An address and a key for it."""

    url: str
    api_key: str


class NoConnection(Exception):
    """No address of the service is known."""


def find_connection(*, url: str | None = None, api_key: str | None = None) -> Connection:
    """Completes an address and a key that are not given.

    A key from the file is used for the file's own address only: it is not sent to another one.

    Raises:
        NoConnection: neither arguments nor environment name an address, and no service of this machine left a whole file.
    """
    settings = ClientSettings()
    url = (url or settings.url).rstrip("/")
    api_key = api_key or settings.api_key
    if url and api_key:
        return Connection(url=url, api_key=api_key)
    left = read_connection(settings.home)
    if left is not None and url in ("", left.url):
        return Connection(url=left.url, api_key=api_key or left.api_key)
    if not url:
        file = settings.home / CONNECTION_FILE
        if file.exists():
            raise NoConnection(
                f"no service is known: {file} is damaged and STILLHOUSE_URL is not set. "
                "The next start writes the file anew: end a running stillhouse up, then start it again"
            )
        raise NoConnection(
            f"no service is known: {file} is not there and STILLHOUSE_URL is not set. "
            "Start one on this machine with: stillhouse up"
        )
    return Connection(url=url, api_key=api_key)


def read_connection(folder: Path) -> Connection | None:
    """Reads the file of :func:`write_connection` in ``folder``; None if there is none, or no whole one."""
    try:
        return Connection.model_validate_json((folder / CONNECTION_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_connection(folder: Path, connection: Connection) -> Path:
    """Replaces the file in one step. It is at no moment readable by others."""
    path = folder / CONNECTION_FILE
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(connection.model_dump_json(indent=2) + "\n")
    unfinished.replace(path)
    return path
