"""The states of a job, the legal moves between them, and its priorities. No I/O.

    checking ──► queued ◄──► paused          queued ──claim──► running ──► succeeded | failed | cancelled
        │          ▲                                              │
        └► waiting ┘                                              └─ lost, crashed, drained, preempted ──► queued

A queued job waits again if it is changed to depend on another. ``stop_requested`` (cancel, pause, preempt) is a request on a
running job, not a state. A final state is never left.
"""

from enum import IntEnum, StrEnum


class Status(StrEnum):
    """The state of a job."""

    CHECKING = "checking"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNSTARTED = (Status.CHECKING, Status.WAITING, Status.QUEUED)
"""What a user's limit of unstarted jobs counts."""
FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.CHECKING: frozenset({Status.WAITING, Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.WAITING: frozenset({Status.QUEUED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.WAITING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Event(StrEnum):
    """What happens to a job within a state; a move to another state is the event ``job.<state>``."""

    CHECK_STARTED = "job.check_started"
    CHECK_LOST = "job.check_lost"
    PROMOTED = "job.promoted"
    STOP_REQUESTED = "job.stop_requested"
    STOP_WITHDRAWN = "job.stop_withdrawn"


HAPPENS_IN: dict[Event, Status] = {
    Event.CHECK_STARTED: Status.CHECKING,
    Event.CHECK_LOST: Status.CHECKING,
    Event.PROMOTED: Status.QUEUED,
    Event.STOP_REQUESTED: Status.RUNNING,
    Event.STOP_WITHDRAWN: Status.RUNNING,
}
"""The one state in which each of these may happen."""


class Priority(IntEnum):
    """The priority of a job, and its class in the queue; the lower number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2

    @classmethod
    def named(cls, word: str) -> "Priority":
        """The priority that a spec calls ``word``."""
        return cls[word.upper()]

    @property
    def word(self) -> str:
        """Its name in a spec."""
        return self.name.lower()


class Outcome(StrEnum):
    """The result of a request or a transition, for its caller to decide on."""

    APPLIED = "applied"
    ALREADY = "already"
    """The job was there before: a repeat, harmless."""
    LEASE_LOST = "lease_lost"
    """Another attempt, or none, holds the job: publish nothing, stop the trainer."""
    NOT_ALLOWED = "not_allowed"
    """The job's state forbids it."""


def may_move(source: Status, target: Status) -> bool:
    """Whether a job may go from ``source`` to ``target``."""
    return target in TRANSITIONS[source]


def may_happen(event: Event, status: Status) -> bool:
    """Whether the event may happen in that state."""
    return HAPPENS_IN[event] is status
