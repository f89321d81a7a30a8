"""A host without room for a job's files says so before anything is trained."""

import errno
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from service.spec import parse_spec
from tests.unit.worker.preflight.jobs import digits
from worker.data import UnusableData, load_data
from worker.errors import JobFault
from worker.job.early_checks import check_disk
from worker.job.error_mapping import as_failure
from worker.job.networks import Networks
from worker.models import UnreadableNetwork
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
    assert failed.message.startswith("This host fails: ")


@pytest.mark.parametrize(
    "number", [errno.ESTALE, errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EFBIG, errno.EBADF]
)
def test_whatever_else_the_host_cannot_do_is_its_own_fault_too_however_it_was_told(number: int) -> None:
    error = OSError(number, "of the host")
    unusable, unreadable = UnusableData("the dataset cannot be read"), UnreadableNetwork("no weights")
    unusable.__cause__ = unreadable.__cause__ = error
    assert {as_failure(each).code for each in (error, unusable, unreadable)} == {"artifacts_unavailable"}


def test_a_host_without_a_thread_to_spare_is_at_fault_and_not_the_job() -> None:
    assert as_failure(RuntimeError("can't start new thread")).code == "artifacts_unavailable"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "trainer_error"),
        (PermissionError(errno.EACCES, "Permission denied"), "trainer_error"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
    ],
)
def test_a_file_that_a_job_names_and_the_memory_that_it_takes_are_its_own(error: OSError, code: str) -> None:
    assert as_failure(error).code == code
