"""One run: the same jobs first in peace and then under faults, and the promise checked once it is calm again."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.cluster import SLOTS, Cluster, cluster
from tests.faults.faults import FAULTS, Fault
from tests.faults.people import Ledger, Person
from tests.faults.promise import STUDENT, Broken, broken_promises, nothing_is_left, nothing_stays, tell_story
from tests.faults.specs import KINDS, SUCCESSOR, spec
from tests.faults.waiting import NeverCame, until

Say = Callable[[str], None]
_PEACE_SECONDS = 240.0
_TOLD_STORIES = 5


@dataclass(frozen=True)
class Plan:
    """What is to happen. The same seed draws the same faults in the same order; when each meets which job is the machine's."""

    seed: int
    num_faults: int
    num_jobs: int
    num_people: int = 8
    most_at_once: int = 3
    """Faults."""
    pause_seconds: float = 1.5
    """Between the beginnings of two faults, on average."""
    kinds: Sequence[str] = KINDS
    faults: Sequence[Fault] = FAULTS
    replica: bool = True
    faketime: str | None = None


@dataclass
class Outcome:
    """What happened."""

    made: list[str] = field(default_factory=list)
    """Every fault, in words."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How many jobs ended in each state."""
    attempts: int = 0
    broken: list[Broken] = field(default_factory=list)


def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """Runs it. ``say`` gets each fault as it ends; the logs of all parts are in ``folder`` afterwards."""
    outcome = Outcome()
    began_at = time.monotonic()

    def stamp(text: str) -> None:
        say(f"{time.monotonic() - began_at:7.1f} s  {text}")

    say(f"seed {plan.seed}: {plan.num_faults} faults over {plan.num_jobs} jobs; logs in {folder}")
    with cluster(folder, replica=plan.replica, faketime=plan.faketime) as service:
        undisturbed = _in_peace(service, plan.kinds)
        stamp(f"{len(undisturbed)} kinds of jobs ran in peace")
        ledger = _under_faults(service, plan, outcome, stamp)
        stamp("every job has ended")
        service.wait_until_ready()
        outcome.broken += broken_promises(service, ledger, undisturbed)
        stamp("what is promised was checked")
        outcome.broken += _every_device_is_free(service)
        stamp("every device is free")
        for job_id in list(dict.fromkeys(broken.job_id for broken in outcome.broken if broken.job_id))[:_TOLD_STORIES]:
            say(f"the story of {job_id}:\n{tell_story(service, job_id)}")
        with service.client() as client:
            jobs = list(client.jobs())
        for job in jobs:
            outcome.statuses[job.status] = outcome.statuses.get(job.status, 0) + 1
            outcome.attempts += job.attempt
        if not outcome.broken:
            outcome.broken += nothing_stays(service, [job.id for job in jobs])
    outcome.broken += nothing_is_left(service)
    stamp("the service has stopped")
    return outcome


def _in_peace(service: Cluster, kinds: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each kind's student where nothing happens to it."""
    students = {}
    with service.client() as client:
        posted = {kind: client.submit(spec(kind)).id for kind in kinds}
        posted[SUCCESSOR] = client.submit(spec(SUCCESSOR, teacher_job=posted[KINDS[0]])).id
        for kind, job_id in posted.items():
            job = client.wait(job_id, timeout_seconds=_PEACE_SECONDS)
            assert job.status == "succeeded", (kind, job.status, job.error)
            students[kind] = next(file.sha256 for file in client.artifacts(job_id) if file.name == STUDENT)
    return students


def _under_faults(service: Cluster, plan: Plan, outcome: Outcome, say: Say) -> Ledger:
    ledger = Ledger(plan.num_jobs)
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(service.client(number))) for number in range(len(service.apis))]
        people = [
            Person(f"person {number}", clients, ledger, seed=f"{plan.seed} person {number}", kinds=plan.kinds)
            for number in range(plan.num_people)
        ]
        for person in people:
            person.start()
        _Weather(service, plan, ledger, outcome, say).run()
        ledger.allow(plan.num_jobs)
        for person in people:
            person.join()
    return ledger


class _Weather:
    """Draws faults and makes them, a few at once, as jobs are posted."""

    def __init__(self, service: Cluster, plan: Plan, ledger: Ledger, outcome: Outcome, say: Say) -> None:
        self._service, self._plan, self._ledger, self._outcome, self._say = service, plan, ledger, outcome, say
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def run(self) -> None:
        plan, num_begun = self._plan, 0
        for fault, seed in self._draws():
            self._ledger.allow(plan.num_people + num_begun * plan.num_jobs // plan.num_faults)
            with self._changed:
                self._changed.wait_for(lambda: len(self._held) < plan.most_at_once)
                if len(self._outcome.made) + len(self._held) >= plan.num_faults:
                    self._changed.wait_for(lambda: not self._held)
                    if len(self._outcome.made) >= plan.num_faults:
                        return
                if fault.holds in self._held:
                    continue
                self._held.add(fault.holds)
                num_begun = len(self._outcome.made) + len(self._held)
            random_of_fault = random.Random(seed)
            threading.Thread(target=self._make, args=(fault, random_of_fault), name=fault.name, daemon=True).start()
            time.sleep(random_of_fault.expovariate(1 / plan.pause_seconds))
            self._wait_for_people(num_begun)
            if self._ledger.is_closed and self._ledger.complaints:
                return

    def _draws(self) -> Iterator[tuple[Fault, str]]:
        draw = random.Random(f"{self._plan.seed} faults")
        weights = [fault.weight for fault in self._plan.faults]
        while True:
            yield draw.choices(self._plan.faults, weights)[0], f"{self._plan.seed} {draw.getrandbits(64)}"

    def _make(self, fault: Fault, rng: random.Random) -> None:
        told: str | None = None
        try:
            told = fault.make(self._service, rng)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on and tells it
            self._ledger.complain(f"the fault itself failed: {fault.name}: {type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._held.remove(fault.holds)
                if told is not None:
                    self._outcome.made.append(f"{fault.name} {told}".rstrip())
                    self._say(f"fault {len(self._outcome.made):3}: {self._outcome.made[-1]}")
                self._changed.notify_all()

    def _wait_for_people(self, num_begun: int) -> None:
        """Faults are spread over the jobs: it waits for people who are behind."""
        plan = self._plan
        due = num_begun * plan.num_jobs // plan.num_faults - plan.num_people
        until(
            lambda: self._ledger.num_posted >= due or self._ledger.is_closed, f"nobody has posted job {due}", timeout_seconds=600
        )


def _every_device_is_free(service: Cluster) -> Iterator[Broken]:
    """Jobs that hold every slot of a worker run on both workers at once: no slot is held by an attempt that is over."""
    document = spec(KINDS[0]) | {"training": {"max_steps": 1_000_000}, "resources": {"cpu_slots": SLOTS}}
    with service.client() as client:
        ids = [client.submit(document).id for _ in service.workers]
        try:
            until(
                lambda: len({client.job(job_id).worker for job_id in ids} - {None}) == len(ids),
                "jobs that need every slot of a worker do not run on both",
                timeout_seconds=_PEACE_SECONDS,
            )
        except NeverCame as error:
            yield Broken(f"{error}: {[client.job(job_id).status_reason for job_id in ids]}")
        for job_id in ids:
            client.cancel(job_id, keep="none")
        for job_id in ids:
            client.wait(job_id, timeout_seconds=_PEACE_SECONDS)
