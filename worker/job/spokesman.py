"""What the ranks of one attempt say and hear: the first speaks for all, and what it is asked to do all do at the same moment."""

from dataclasses import asdict

from worker.distributed.ranks import Ranks
from worker.protocol import Event, Failed, Reporter, StopRequest


class Spokesman:
    """The reporter of a rank while the others are with it. Of any but the first nothing is heard but that it failed."""

    def __init__(self, reporter: Reporter, ranks: Ranks) -> None:
        self._reporter, self._ranks = reporter, ranks

    def emit(self, event: Event) -> None:
        if self._ranks.is_first or isinstance(event, Failed):
            self._reporter.emit(event)

    def stop_request(self) -> StopRequest | None:
        """The one that the first rank has heard of: the ranks ask this in the same order."""
        request = self._reporter.stop_request()
        agreed = self._ranks.agree(None if request is None else asdict(request))
        return None if agreed is None else StopRequest(**agreed)
