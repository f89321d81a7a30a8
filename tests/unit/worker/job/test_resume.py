"""A job that was begun goes on: what its data are known by stays what it was."""

from pathlib import Path

import pytest
import torch

from service.formats.media.encoded import text_digest
from tests.integration.on_disk import shards_of
from worker.data.disk.stored import Reading, stored_splits
from worker.data.split import Split
from worker.job import resume


@pytest.mark.parametrize("together", [1, 7, 100])
def test_answers_on_disk_are_known_by_the_list_of_their_digests(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "_WRITTEN_TOGETHER", together)
    answers = stored_splits(shards_of("answered", tmp_path, count=14), ("answer",), Reading(tmp_path))["train"]
    split = Split(answers, torch.zeros(14), answers=answers)
    written = repr((14, [text_digest(answer) for answer in answers]))
    assert b"".join(resume._answers(split)).decode() == written


def test_answers_in_memory_are_known_by_themselves() -> None:
    split = Split(["a", "b"], torch.zeros(2), answers=["c", "it's"])
    assert b"".join(resume._answers(split)) == b"(2, ['c', \"it's\"])"
