"""The time. All hosts use one clock, the database's; a test, or a replay of a week, gives its transactions another.

The clock stands still within a transaction.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

Clock = Callable[[], datetime]
_KEY = "clock"


def info(clock: Clock | None) -> dict[str, Any]:
    """The ``Session.info`` that makes :func:`now` use this clock; None is the database's own."""
    return {_KEY: clock}


def own_time(session: Session) -> datetime | None:
    """The time of a clock that the session has instead of the database's, if it has one."""
    clock: Clock | None = session.info.get(_KEY)
    return None if clock is None else clock()


def now(session: Session) -> datetime:
    """The current time, aware, in UTC."""
    own = own_time(session)
    if own is not None:
        return own
    with session.no_autoflush:  # a transition is written as a whole: its half would break the tables' constraints
        time: datetime = session.execute(select(func.now())).scalar_one()
    return time


def now_sql(session: Session) -> Any:
    """The current time as an SQL expression, which saves a statement."""
    own = own_time(session)
    return func.now() if own is None else literal(own)


def seconds_sql(seconds: float) -> Any:
    """That many seconds as an SQL interval, to add to a time or to take from one."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
