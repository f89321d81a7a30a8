"""What an attempt tells beside its trainings: which phase begins and how far it is; and whether it is to stop."""

import logging
from dataclasses import asdict

from worker.distributed.ranks import ProcessGroup
from worker.errors import StopAsked
from worker.protocol import Event, Failed, Phase, PhaseStarted, Progress, Reporter, StopRequest

logger = logging.getLogger(__name__)


class PhaseReporter:
    """Speaks to the reporter of one attempt."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def start(self, phase: Phase, message: str) -> None:
        """A phase begins."""
        logger.info(message)
        self._reporter.emit(PhaseStarted(phase=phase, message=message))

    def report(self, phase: Phase, step: int, *, total: int) -> None:
        """So far of so much is done. Raises StopAsked."""
        self.check_stop()
        self._reporter.emit(
            Progress(phase=phase, step=step, total_steps=total, epoch=1, samples_per_second=None, eta_seconds=None)
        )

    def check_stop(self) -> None:
        """Raises StopAsked when a stop was asked for."""
        request = self._reporter.stop_request()
        if request is not None:
            raise StopAsked(request)


class RankZeroReporter:
    """The reporter of a rank while the others are with it. Of any but the first nothing is heard but that it failed."""

    def __init__(self, reporter: Reporter, group: ProcessGroup) -> None:
        self._reporter, self._ranks = reporter, group

    def emit(self, event: Event) -> None:
        if self._ranks.is_rank0 or isinstance(event, Failed):
            self._reporter.emit(event)

    def stop_request(self) -> StopRequest | None:
        """The one that the first rank has heard of: the ranks ask this in the same order."""
        request = self._reporter.stop_request()
        agreed = self._ranks.broadcast_from_rank0(None if request is None else asdict(request))
        return None if agreed is None else StopRequest(**agreed)
