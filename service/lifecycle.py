"""The states of a job and the legal moves between them. No I/O.

    checking ──► queued ◄──► paused          queued ──claim──► running ──► succeeded | failed | cancelled
        │          ▲                                              │
        └► waiting ┘                                              └─ lost, crashed, drained, preempted ──► queued

A queued job waits again when it is told to depend on another. ``stop_requested`` (cancel, pause, preempt) is a request on a
running job, not a state. A final state is never left.
"""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is."""

    CHECKING = "checking"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNSTARTED = (Status.CHECKING, Status.WAITING, Status.QUEUED)
FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

PRIORITY_RANK = {"high": 0, "normal": 1, "low": 2}

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


class Outcome(StrEnum):
    """What a transition function answers; its caller decides on it."""

    APPLIED = "applied"
    ALREADY = "already"
    """The job was there before: a repeat, harmless."""
    LEASE_LOST = "lease_lost"
    """Another attempt, or none, holds the job: publish nothing, stop the trainer."""
    NOT_ALLOWED = "not_allowed"
    """The job's state forbids it."""


def may_move(source: Status, target: Status) -> bool:
    """Whether the lifecycle has that arrow."""
    return target in TRANSITIONS[source]
