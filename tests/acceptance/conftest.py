"""One whole stack, as ``stillhouse up`` starts it, for all acceptance tests of a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client import Client
from service.embedded.stack import Stack, stack
from tests.conftest import own_folder, reserved_port


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """As pytest's own, but where servers may run."""
    with own_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def running_stack() -> Iterator[Stack]:
    with (
        own_folder() as folder,
        reserved_port() as port,
        stack(folder / "My Data ü", port=port, say=lambda text: None) as running,  # as people name folders
    ):
        yield running


@pytest.fixture
def client(running_stack: Stack) -> Iterator[Client]:
    with Client(running_stack.connection.url, running_stack.connection.api_key) as client:
        yield client


@pytest.fixture
def spec() -> dict[str, object]:
    """A job of a few seconds."""
    return {
        "name": "a small one",
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 16}, "training": {"epochs": 3}},
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"epochs": 3},
        "labels": {"suite": "acceptance"},
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """For commands that must not see this machine's own service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STILLHOUSE_", "DATABASE_", "REDIS_"))}
    return kept | {"STILLHOUSE_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
