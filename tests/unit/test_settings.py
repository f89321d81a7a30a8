"""Settings that follow from others."""

from pathlib import Path

import pytest

from service.connection import ClientSettings
from service.settings import Settings


@pytest.mark.parametrize(
    ("scratch", "teacher_cache", "folder"),
    [
        (None, None, None),
        (Path("/scratch"), None, Path("/scratch/teacher-cache")),
        (Path("/scratch"), Path("/cache"), Path("/cache")),
        (None, Path("/cache"), Path("/cache")),
    ],
)
def test_what_teachers_say_is_kept_where_it_is_said_or_in_the_scratch_folder(
    scratch: Path | None, teacher_cache: Path | None, folder: Path | None
) -> None:
    assert Settings(scratch=scratch, teacher_cache=teacher_cache).teacher_cache_folder == folder


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("STILLHOUSE_SECRET_KEY", "secret_key"),
        ("STILLHOUSE_SCRATCH", "scratch"),
        ("STILLHOUSE_POOLS", "pools"),
        ("STILLHOUSE_LEASE_SECONDS", "lease_seconds"),
    ],
)
def test_a_variable_that_is_empty_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, variable: str, field: str) -> None:
    monkeypatch.delenv(variable, raising=False)
    unset = getattr(Settings(), field)
    monkeypatch.setenv(variable, "")
    assert getattr(Settings(), field) == unset


def test_of_cuda_an_empty_variable_means_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Settings().cuda_visible_devices is None
    for visible in ("", "0,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert Settings().cuda_visible_devices == visible


def test_a_client_finds_its_folder_where_the_variable_for_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_HOME", "")
    assert ClientSettings().home == Path.home() / ".stillhouse"
