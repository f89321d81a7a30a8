"""Reports of an attempt beside those of its trainings: phases, their progress, and checks for a requested stop."""

import logging
from dataclasses import asdict

from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.errors import StopAsked
from worker.protocol import Event, Failed, Phase, PhaseStarted, Progress, Reporter, StopRequest

logger = logging.getLogger(__name__)


class PhaseReporter:
    """Reports the phases of one attempt that are not trainings."""

    def __init__(self, reporter: Reporter, *, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._reporter, self._group = reporter, group

    def start(self, phase: Phase, message: str) -> None:
        """Logs and reports the start of a phase."""
        logger.info(message)
        self._reporter.emit(PhaseStarted(phase=phase, message=message))

    def report(self, phase: Phase, step: int, *, total: int) -> None:
        """Reports ``step`` of ``total`` for a phase that is not a training. Raises StopAsked if a stop was requested."""
        self.check_stop()
        self._reporter.emit(
            Progress(phase=phase, step=step, total_steps=total, epoch=1, samples_per_second=None, eta_seconds=None)
        )

    def check_stop(self) -> None:
        """Raises StopAsked if a stop was requested of rank 0: a collective, which all ranks call in the same order."""
        request = self._reporter.stop_request()
        agreed = self._group.broadcast_from_rank0(None if request is None else asdict(request))
        if agreed is not None:
            raise StopAsked(StopRequest(**agreed))


class RankZeroReporter:
    """The reporter of a rank among several: rank 0 emits every event, the other ranks only :class:`Failed`."""

    def __init__(self, reporter: Reporter, group: ProcessGroup) -> None:
        self._reporter, self._group = reporter, group

    def emit(self, event: Event) -> None:
        if self._group.is_rank0 or isinstance(event, Failed):
            self._reporter.emit(event)

    def stop_request(self) -> StopRequest | None:
        """This rank's own request; the ranks act on rank 0's alone."""
        return self._reporter.stop_request()
