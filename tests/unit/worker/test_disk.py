"""A host without room for a job's files says so before anything is trained."""

import errno
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from service.spec import parse_spec
from tests.unit.worker.preflight.jobs import digits
from worker.data import load_data
from worker.errors import JobFault
from worker.job.early_checks import check_disk
from worker.job.error_mapping import as_failure
from worker.job.networks import Networks
from worker.tasks import TASKS

Usage = namedtuple("Usage", "free")


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    spec = parse_spec(digits())
    data = load_data(spec.dataset, None, task=TASKS[spec.task])
    return Networks(spec, data, device=torch.device("cpu"), inputs={}, scratch=tmp_path)


def test_a_disk_without_room_for_checkpoints_and_result_is_told(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    check_disk(networks)
    monkeypatch.setattr("worker.job.early_checks.disk_usage", lambda folder: Usage(100_000))
    with pytest.raises(JobFault, match=r"take about 0.00 GiB, and the disk of this host has 0.00 GiB free in ") as caught:
        check_disk(networks)
    assert (caught.value.code, caught.value.retryable) == ("artifacts_unavailable", True)


def test_a_file_that_does_not_fit_is_the_hosts_fault_and_not_the_jobs() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_text("x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    failed = as_failure(caught.value)
    assert failed is not None
    assert (failed.code, failed.retryable) == ("artifacts_unavailable", True)
    assert failed.message.startswith("The disk of this host is full: ")


def test_a_checkpoint_that_does_not_fit_is_the_hosts_fault_too() -> None:
    words = "Error while serializing: I/O error: No space left on device (os error 28)"  # of a disk that was full
    failed = as_failure(SafetensorError(words))
    assert (failed.code, failed.retryable) == ("artifacts_unavailable", True)
    assert failed.message.startswith("The disk of this host is full: ")


def test_a_disk_that_fails_is_the_hosts_fault_too(tmp_path: Path) -> None:
    failed = as_failure(OSError(errno.EIO, "Input/output error", str(tmp_path)))
    assert (failed.code, failed.retryable) == ("artifacts_unavailable", True)
    assert failed.message.startswith("The disk of this host fails: ")
