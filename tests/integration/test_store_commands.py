"""The command that puts another store in the place of the one before."""

import os
import subprocess
import sys
from pathlib import Path

from service.database import Database
from service.store import Store
from service.store_identity import store_of
from tests.integration.test_store_identity import upload


def adopt_store(database_url: str, store_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "adopt-store", *options],
        capture_output=True,
        text=True,
        env=os.environ | {"DATABASE_URL": database_url, "STILLHOUSE_STORE": store_url},
    )


def test_a_store_without_the_files_is_adopted_only_where_that_is_said(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    upload(database, store_of(database, f"file://{tmp_path}/store"), tmp_path)
    other = f"file://{tmp_path}/other"
    refused = adopt_store(database_url, other)
    assert refused.returncode == 2, refused.stderr
    assert "holds none of the newest files" in refused.stderr
    assert "--although-files-are-missing" in refused.stderr
    assert not (tmp_path / "other").exists()
    done = adopt_store(database_url, other, "--although-files-are-missing")
    assert done.returncode == 0, done.stderr
    assert str(Store(other).marker()) in done.stderr
    store_of(database, other).ping()
