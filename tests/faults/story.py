"""Whether the event log of a job tells a legal story, written by those who held it."""

from collections.abc import Iterator, Mapping, Sequence

from service.lifecycle import FINAL, HAPPENS_IN, Event, Status, may_happen, may_move
from service.tables import Job, JobEvent

_OF_ATTEMPTS = {"progress", "metrics", "checkpoint"}


def faults_of(job: Job, events: Sequence[JobEvent], writers: Mapping[int, str]) -> Iterator[str]:
    """What is wrong in the story of a job. ``writers`` are the names of the processes that wrote its events, by number."""
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield f"its events have the numbers {[event.seq for event in events]}"
    status, attempt, holder, num_final = None, 0, "", 0
    for event in events:
        kind = event.type.removeprefix("job.")
        if event.type in _OF_ATTEMPTS:
            if status is not Status.RUNNING:
                yield f"event {event.seq}, {event.type}, while it is {status}"
            if writers[event.seq] != holder:
                yield f"event {event.seq}, {event.type}, is by {writers[event.seq]}, and {holder} holds attempt {attempt}"
        elif kind in set(Status) and event.type.startswith("job."):
            target = Status(kind)
            if status is not None and not may_move(status, target):
                yield f"event {event.seq} moves it from {status} to {target}"
            if target is Status.RUNNING:
                attempt, holder = attempt + 1, writers[event.seq]
                if event.data["attempt"] != attempt:
                    yield f"event {event.seq} begins attempt {event.data['attempt']} after {attempt - 1}"
            elif target is Status.SUCCEEDED and writers[event.seq] != holder:
                yield f"event {event.seq}, {event.type}, is by {writers[event.seq]}, and {holder} holds attempt {attempt}"
            num_final += target in FINAL
            status = target
        elif event.type in HAPPENS_IN and (status is None or not may_happen(Event(event.type), status)):
            yield f"event {event.seq}, {event.type}, while it is {status}"
    if status != job.status:
        yield f"its last move is to {status}, and it is {job.status}"
    if attempt != job.attempt:
        yield f"{attempt} attempts began, and it is at attempt {job.attempt}"
    if num_final != 1 or job.status not in FINAL:
        yield f"{num_final} of its events are final, and it is {job.status}"


def told(events: Sequence[JobEvent], writers: Mapping[int, str]) -> str:
    """The log for people."""
    return "\n".join(
        f"  {event.seq:4} {event.created_at:%H:%M:%S.%f} {writers.get(event.seq, '?'):12} {event.type}: {event.message}"
        for event in events
    )
