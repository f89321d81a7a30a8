"""For every test, before torch is imported: several trainings at once must not fight for the cores."""

from pathlib import Path

import pytest

from worker.threads import let_idle_threads_sleep

let_idle_threads_sleep()


@pytest.fixture(scope="session")
def spoken_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 40 spoken digits: two of each for training, one for validation, one for test."""
    from examples.spoken_digits import make

    path = tmp_path_factory.mktemp("speech") / "spoken-digits.zip"
    make(path, variations=4)
    return path
