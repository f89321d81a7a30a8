"""The people who use the service meanwhile: each posts jobs, watches them, asks for changes, and writes down what they were told.

They use the service's own client, and do what its users do: what it gives up they begin again, at the other API, with the same
Idempotency-Key. What they are never to be told, such as a 500, or 404 for a job that exists, is a complaint.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from service.client import ApiError, Client, Conflict, Job, Unreachable, WaitTimeout
from tests.faults.specs import KINDS, SUCCESSOR, spec
from tests.faults.waiting import NeverCame

T = TypeVar("T")
_PATIENCE_SECONDS = 150.0
"""For one answer."""
_END_SECONDS = 900.0
"""For the end of one job, whose attempts a long run may end again and again."""
_WISHES = ("nothing",) * 6 + ("cancel", "pause", "pause", "priority", "post again")


@dataclass
class Posted:
    """A job as the one who posted it knows it."""

    kind: str
    key: str
    """Its Idempotency-Key."""
    wish: str
    ids: set[str] = field(default_factory=set)
    """What the service answered to its submissions: one id."""
    seen: list[int] = field(default_factory=list)
    """Numbers of the events that a stream brought."""
    ended: Job | None = None


class Ledger:
    """All that people posted and what they complain about, shared by them; says when the next job is to be posted."""

    def __init__(self, num_jobs: int) -> None:
        self.posted: list[Posted] = []
        self.complaints: list[str] = []
        self._left, self._allowed = num_jobs, 0
        self._changed = threading.Condition()

    @property
    def num_posted(self) -> int:
        return len(self.posted)

    def allow(self, num_jobs: int) -> None:
        """Lets as many jobs be posted in all."""
        with self._changed:
            self._allowed = max(self._allowed, num_jobs)
            self._changed.notify_all()

    def take(self, kinds: Sequence[str], rng: random.Random) -> Posted | None:
        """The next job to post, once it is allowed; None when all are."""
        with self._changed:
            while self._left and self.num_posted >= self._allowed:
                self._changed.wait()
            if not self._left:
                return None
            self._left -= 1
            self._changed.notify_all()
            number = self.num_posted
            posted = Posted(rng.choice(kinds), f"key {number} {rng.getrandbits(64):x}", rng.choice(_WISHES))
            self.posted.append(posted)
            return posted

    def close(self) -> None:
        """No more jobs are posted: somebody waited in vain."""
        with self._changed:
            self._left = 0
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nobody posts any more."""
        return self._left == 0

    def complain(self, about: str) -> None:
        with self._changed:
            self.complaints.append(about)


class Person(threading.Thread):
    """One of them. ``clients`` are one for each API."""

    def __init__(self, name: str, clients: Sequence[Client], ledger: Ledger, *, seed: str, kinds: Sequence[str] = KINDS) -> None:
        super().__init__(name=name, daemon=True)
        self._clients, self._ledger, self._kinds = clients, ledger, (*kinds, SUCCESSOR)
        self._random = random.Random(seed)
        self._own_teacher: str | None = None

    def run(self) -> None:
        while (posted := self._ledger.take(self._kinds, self._random)) is not None:
            try:
                self._see_through(posted)
            except NeverCame as error:
                self._ledger.complain(f"{self.name} about {posted.kind} {sorted(posted.ids)}: {error}")
                self._ledger.close()
            except Exception as error:  # noqa: BLE001 - whatever it is, they were never to meet it
                self._ledger.complain(f"{self.name} about {posted.kind} {sorted(posted.ids)}: {type(error).__name__}: {error}")

    def _see_through(self, posted: Posted) -> None:
        """Posts a job and stays until it has ended."""
        if posted.kind == SUCCESSOR and self._own_teacher is None:
            posted.kind = KINDS[0]
        document = spec(posted.kind, teacher_job=self._own_teacher if posted.kind == SUCCESSOR else None)

        def post(client: Client) -> str:
            job_id = client.submit(document, idempotency_key=posted.key).id
            posted.ids.add(job_id)
            return job_id

        job_id = self._insist(post)
        if posted.kind == KINDS[0]:
            self._own_teacher = job_id
        if posted.wish == "post again":
            self._insist(post)
        elif posted.wish != "nothing":
            self._wish(posted, job_id)
        watch = self._random.choice((self._poll, self._wait, self._stream))
        posted.ended = watch(posted, job_id)
        if posted.ended.status != "succeeded" and self._own_teacher == job_id:
            self._own_teacher = None

    def _wish(self, posted: Posted, job_id: str) -> None:
        """Asks for a change, at some moment of the job's life; one that comes too late, or too early, is refused."""
        time.sleep(self._random.uniform(0, 5))
        match posted.wish:
            case "cancel":
                self._try(lambda client: client.cancel(job_id, keep=self._random.choice(("none", "last"))))
            case "pause" if self._try(lambda client: client.pause(job_id)):
                time.sleep(self._random.uniform(0, 3))
                resumed = self._try(lambda client: client.resume(job_id))
                # Refused only by a job that has ended: one that was at its end when it was asked to pause.
                if not resumed and not self._insist(lambda client: client.job(job_id)).terminal:
                    self._ledger.complain(f"{job_id} was paused and cannot be resumed")
            case "priority":
                self._try(lambda client: client.patch(job_id, priority=self._random.choice(("low", "high"))))

    def _poll(self, posted: Posted, job_id: str) -> Job:
        give_up_at = time.monotonic() + _END_SECONDS
        while not (job := self._insist(lambda client: client.job(job_id))).terminal:
            if time.monotonic() > give_up_at:
                raise NeverCame(f"{job_id} is {job.status} ({job.status_reason}) after {_END_SECONDS} s")
            time.sleep(0.3)
        return job

    def _wait(self, posted: Posted, job_id: str) -> Job:
        give_up_at = time.monotonic() + _END_SECONDS

        def wait(client: Client) -> Job:
            return client.wait(job_id, timeout_seconds=max(1.0, give_up_at - time.monotonic()))

        return self._insist(wait)

    def _stream(self, posted: Posted, job_id: str) -> Job:
        def stream(client: Client) -> None:
            for event in client.events(job_id, after=posted.seen[-1] if posted.seen else 0):
                posted.seen.append(event.seq)

        self._insist(stream)
        return self._poll(posted, job_id)

    def _try(self, ask: Callable[[Client], Job]) -> bool:
        """Whether it was done, rather than refused by the state of the job."""
        try:
            self._insist(ask)
        except Conflict:
            return False
        return True

    def _insist(self, ask: Callable[[Client], T]) -> T:
        """Asks one API and then the other until one answers. Raises what is final."""
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        number = self._random.randrange(len(self._clients))
        while True:
            try:
                return ask(self._clients[number % len(self._clients)])
            except (Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not error.temporary:
                    raise
                if time.monotonic() > give_up_at:
                    raise NeverCame(f"no answer for {_PATIENCE_SECONDS:.0f} s; the last was {error}") from error
                time.sleep(0.2)
            except WaitTimeout as error:
                raise NeverCame(str(error)) from error
            number += 1
