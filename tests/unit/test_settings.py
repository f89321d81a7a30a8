"""Settings that follow from others."""

from pathlib import Path

import pytest

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
