"""Servers run in folders that are theirs alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import own_folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """As pytest's own, but where servers may run."""
    with own_folder() as folder:
        yield folder
