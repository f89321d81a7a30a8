"""The check of a small job that nobody submitted: what a process does only once is done before a job needs it.

Invariant: a job that follows is none the wiser; the generators are as in a new process.
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from service.spec import parse_spec
from worker.distributed.rng import preserved_generators
from worker.preflight.check import check
from worker.protocol import Assignment, Event, Failed, StopRequest

logger = logging.getLogger(__name__)

_SPEC = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 2}},
    "student": {"architecture": {"name": "small-cnn", "width": 2}},
}


class _Nobody:
    def emit(self, event: Event) -> None:
        if isinstance(event, Failed):
            logger.warning("the rehearsal came to nothing: %s", event)

    def stop_request(self) -> StopRequest | None:
        return None


def rehearse(scratch: Path) -> None:
    """Runs the check in this process, on one thread, with its files under ``scratch``."""
    num_threads = torch.get_num_threads()
    try:
        with TemporaryDirectory(prefix="rehearsal-", dir=scratch) as folder, preserved_generators(torch.device("cpu")):
            spec = parse_spec(_SPEC).model_dump(mode="json")
            check(Assignment("rehearsal", spec, Path(folder), num_threads=1, check_only=True), _Nobody())
    except OSError as error:  # as on a full disk, which a job that follows may have no need of
        logger.warning("the rehearsal has no folder: %s", error)
    finally:
        torch.set_num_threads(num_threads)
