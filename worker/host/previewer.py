"""Makes the previews that users of this worker's pool wait for."""

import logging

from sqlalchemy.orm import Session

from service import previews
from service.database import Database
from service.errors import JobFailure
from service.previews import PreviewFence
from service.tables import Preview
from worker.host.access import GaveUpWaiting
from worker.host.lease import LeaseLost
from worker.host.miniature import Miniature, MiniatureRunner
from worker.protocol import Checked, Failed, Previewed

logger = logging.getLogger(__name__)


class Previewer:
    """The previews of this worker."""

    def __init__(self, pool: str, *, runner: MiniatureRunner, database: Database, lease_seconds: float) -> None:
        self._pool, self._runner, self._database, self._lease_seconds = pool, runner, database, lease_seconds

    def make_next(self) -> bool:
        """Makes the next preview; False: there is none, or the next is better made elsewhere."""
        claimed = self._database.run(lambda session: previews.claim(session, self._pool, lease_seconds=self._lease_seconds))
        return claimed is not None and self._make(claimed)

    def _make(self, preview: Preview) -> bool:
        fence = PreviewFence(preview.id, preview.attempt)
        of = Miniature(f"{preview.id}-{preview.attempt}", preview.spec, preview.owner_id, num_samples=preview.num_samples)

        def renew(session: Session) -> bool:
            return previews.renew(session, fence, lease_seconds=self._lease_seconds)

        with self._runner.holding(of, renew) as access:
            try:
                last = self._runner.run(of, access)
                access.in_database(lambda session: _record(session, fence, last))
            except LeaseLost:
                return True
            except GaveUpWaiting as error:
                logger.warning("preview %s is left to the next worker, without %s", preview.id, error)
                return False
        return last is not None


def _record(session: Session, fence: PreviewFence, last: Checked | Previewed | Failed | None) -> None:
    match last:
        case Previewed(preview=made):
            previews.finish(session, fence, made)
        case Failed(retryable=False):
            failure = JobFailure(code=last.code, message=last.message, hint=last.hint, details=last.details)
            previews.finish(session, fence, failure)
        case Failed():
            previews.give_back(session, fence, last.message)
        case _:
            previews.give_back(session, fence, "its worker was told to end")
