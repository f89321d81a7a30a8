"""What is new of the jobs that requests wait for: one read for all of them, in one transaction."""

import logging
from collections.abc import Callable, Set
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import updates
from service.api.responses.jobs import Answer
from service.api.streams import Kind, Messages
from service.errors import NotFound

View = Callable[[Session, str], Answer]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What one read is to find out."""

    versions: dict[str, int | None]
    """The versions that are known; of a job that still has it nothing is read."""
    positions: dict[Kind, dict[str, int]]
    polled: Set[str]
    keys: Set[str]


@dataclass(frozen=True)
class News:
    """What it found."""

    states: dict[str, updates.State]
    changed: Set[str]
    messages: dict[Kind, tuple[dict[str, Messages], set[str]]]
    answers: dict[str, Answer]
    """Of jobs with long polls; that of one that cannot be viewed is missing, and its polls wait on."""
    valid_keys: Set[str]


def read_news(session: Session, *, wanted: Wanted, view: View) -> News:
    """Reads what is wanted; ``view`` reads the answer of a long poll."""
    states = updates.states(session, wanted.versions)
    changed = {job_id for job_id, state in states.items() if state.version != wanted.versions[job_id]}
    ended = {job_id for job_id in changed if states[job_id].is_final}
    messages = {
        kind: kind(session, {job_id: at for job_id, at in positions.items() if job_id in changed}, ended=ended)
        for kind, positions in wanted.positions.items()
    }
    answers = {}
    for job_id in wanted.polled & changed:
        try:
            answers[job_id] = view(session, job_id)
        except SQLAlchemyError:
            raise
        except NotFound:
            pass  # deleted a moment ago: another notification says so
        except Exception:
            logger.exception("job %s cannot be viewed", job_id)
    valid_keys = updates.valid_keys(session, wanted.keys) if wanted.keys else set()
    return News(states, changed, messages, answers, valid_keys)
