"""Deletes rows together with the files that they name."""

import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service import unlisted_files
from service.api.dependencies import Services
from service.part_errors import Meaning, meaning_of

logger = logging.getLogger(__name__)


async def remove_with_files(services: Services, remove: Callable[[Session], str]) -> None:
    """Runs ``remove``, which deletes rows and returns the store's prefix of their files, and removes those after the commit.

    From then on they are deleted, even if the store goes away meanwhile: the sweep removes what is left. Raises PartAway, or
    Unavailable, before anything is deleted, if the store is away already.
    """

    def commit(session: Session) -> str:
        prefix = remove(session)
        unlisted_files.note(session, prefix)
        return prefix

    await services.store_calls.run(services.store.ping)
    prefix = await run_in_threadpool(services.database.run, commit)
    try:
        await services.store_calls.run(partial(services.store.remove_prefix, prefix))
    except Exception as error:
        if meaning_of(error) is not Meaning.AWAY:
            raise
        logger.warning("the files of %s are removed later, the store is away: %s", prefix, error)
