"""Who runs next, and where: the rules, on a picture of one pool at one moment. No I/O.

The order of the waiting jobs is: class (a job that waited long is in a better one than its priority), then what the owner used
divided by the owner's weight, then the job's own priority, then age. A claim takes the first of them that fits what its host has
free. A job that fits nowhere does not hold up the others, until it has waited long enough: then one host is kept free for it, and
only what will end before its devices are together, or leaves it enough of them, may still start there (EASY backfilling: Lifka,
The ANL/IBM SP scheduling system, 1995).

The claim and what the API tells of the queue use the same functions, so what is told is what would happen.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import merge

from service.lifecycle import Priority
from service.queue_policy import Rules
from service.scheduling.hosts import Device, Holder, Host, Kind, Need

Turn = tuple[int, datetime, str]
"""Own priority, age, id: orders the jobs of one user and class."""
_Turn = tuple[int, float, Turn]
LaneKey = tuple[int, str, str]
"""Class, owner, shape."""
WINDOW = 100
"""How many of a user's jobs of one shape are looked at for one that is short enough to pass a kept host."""
MAX_WINDOWS = 10
"""Of how many users and shapes that is done for one claim; of the others the first job counts."""
MUCH_EARLIER = timedelta(minutes=5)
"""And half of the time: then a job that a host is kept for gets another, which it does not leave for every new guess."""


@dataclass(frozen=True)
class Waiting:
    """A queued job."""

    id: str
    owner_id: str
    queue_class: int
    priority: int
    queued_at: datetime
    waiting_since: datetime
    need: Need
    shape: str
    """The need as one word."""
    bound_seconds: float
    """How long it may still run: it is stopped then, so it surely has ended."""
    ran_seconds: float = 0.0
    """In earlier attempts."""

    @property
    def lane(self) -> "LaneKey":
        """Where it waits."""
        return self.queue_class, self.owner_id, self.shape

    @property
    def turn(self) -> Turn:
        """Its turn among the jobs of its user and class."""
        return self.priority, self.queued_at, self.id


@dataclass
class Share:
    """What stands in the queue for a user."""

    owner_id: str
    name: str
    weight: float = 1.0
    used: float = 0.0
    """Decayed GPU-seconds."""
    running: int = 0
    max_running: int | None = None

    @property
    def level(self) -> float:
        """Those of a lower level go first."""
        return self.used / self.weight

    @property
    def is_full(self) -> bool:
        """Whether none of the user's jobs may start before one has ended."""
        return self.max_running is not None and self.running >= self.max_running


@dataclass
class Lane:
    """The waiting jobs of one user, class and shape, in their turn: where the first does not fit, none does."""

    key: LaneKey
    need: Need
    jobs: list[Waiting]
    """The first of them; never empty."""
    extend: Callable[["Lane"], None] = lambda lane: None
    """Adds jobs that come after ``reached``, if there are more."""
    reached: Turn = field(init=False)
    """Of the last job that was known, whether it still waits or not."""

    def __post_init__(self) -> None:
        self.reached = self.jobs[-1].turn

    @property
    def owner_id(self) -> str:
        return self.key[1]

    @property
    def head(self) -> Waiting:
        return self.jobs[0]

    def copy(self) -> "Lane":
        """One whose jobs may be taken out without a change to this one; what it needs to know more, this one learns too."""

        def extend(copied: Lane) -> None:
            if copied.reached == self.reached:
                self.extend(self)
            copied.add(self.jobs[bisect_right(self.jobs, copied.reached, key=lambda job: job.turn) :])

        copied = Lane(self.key, self.need, list(self.jobs), extend)
        copied.reached = self.reached
        return copied

    def add(self, jobs: Sequence[Waiting]) -> None:
        """Those that come next."""
        if jobs:
            self.jobs += jobs
            self.reached = jobs[-1].turn

    def window(self) -> list[Waiting]:
        """The first ``WINDOW`` jobs."""
        if len(self.jobs) < WINDOW:
            self.extend(self)
        return self.jobs[:WINDOW]


@dataclass(frozen=True)
class Reservation:
    """A host that is kept free for a job."""

    job: Waiting
    worker_id: str


@dataclass(frozen=True)
class Placement:
    """A job that may start, and on what."""

    job: Waiting
    host: Host
    devices: tuple[Device, ...]


@dataclass
class Pool:
    """What the rules look at. It changes as jobs are placed, so that many steps can be thought ahead."""

    pool: str
    now: datetime
    rules: Rules
    shares: Mapping[str, Share]
    lanes: dict[LaneKey, Lane]
    reservations: list[Reservation]
    find_hosts: Callable[[], Sequence[Host]]
    """All hosts whose heart beats; asked for only where one host does not tell enough."""
    made: list[Reservation] = field(default_factory=list)
    """Reservations that :meth:`next_for` found due."""
    _queues: dict[Need, list[tuple[_Turn, LaneKey]]] = field(init=False, default_factory=dict)
    """The lanes of each need, in the order in which their first jobs have their turn."""
    _turns: dict[LaneKey, _Turn] = field(init=False, default_factory=dict)
    _own: dict[str, set[LaneKey]] = field(init=False, default_factory=dict)
    """Each user's lanes."""
    _room: dict[Need, Host | None] = field(init=False, default_factory=dict)
    """A host on which the need was seen to fit; None where it fitted on none."""
    _serving: dict[Need, list[Host]] = field(init=False, default_factory=dict)
    _roomy: dict[Need, deque[Host]] = field(init=False, default_factory=dict)
    """Hosts that were seen to have room for the need, and maybe have it no more."""
    _open: deque[Host] | None = field(init=False, default=None)
    """Hosts that were seen to have a free device, and maybe have none any more."""

    def __post_init__(self) -> None:
        for key, lane in self.lanes.items():
            self._turns[key] = self._turn(lane)
            self._own.setdefault(lane.owner_id, set()).add(key)
            self._queues.setdefault(lane.need, []).append((self._turns[key], key))
        for queue in self._queues.values():
            queue.sort()

    def thought_ahead(self) -> "Pool":
        """A copy, in which jobs may be placed without a change to this one."""
        hosts = [replace(host, held=dict(host.held)) for host in self.find_hosts()]
        return replace(
            self,
            shares={owner_id: replace(share) for owner_id, share in self.shares.items()},
            lanes={key: lane.copy() for key, lane in self.lanes.items()},
            reservations=list(self.reservations),
            find_hosts=lambda: hosts,
            made=[],
        )

    def next_for(self, host: Host) -> Placement | None:
        """The job that a claim of this host takes; None where nothing that may start fits what it has free."""
        if host.draining or host.is_full:
            return None
        return self._next({need: [host] if host.pick(need) else [] for need in self._queues})

    def placed(self) -> tuple["Pool", dict[str, Placement]]:
        """A copy in which all has started that could start at this moment; and what that is."""
        ahead = self.thought_ahead()
        starting: dict[str, Placement] = {}
        while (placement := ahead.next_anywhere()) is not None:
            starting[placement.job.id] = placement
            ahead.start(placement)
        return ahead, starting

    def next_anywhere(self) -> Placement | None:
        """The first in the queue that may start somewhere, as if all hosts claimed at once; None where nothing may.

        For a picture in which jobs start and none ends.
        """
        if not self._is_open():
            return None
        return self._next({need: self._roomy_for(need) for need in self._queues})

    def hindrance(self, host: Host, job: Waiting, devices: Sequence[Device]) -> Reservation | None:
        """The reservation that keeps a job from starting on these devices."""
        together = 0
        for kept in self.binding(host, job):
            together += kept.job.need.count
            need = kept.job.need.times(together)
            ready = host.ready_at(need, now=self.now)
            if ready is None or self.now + timedelta(seconds=job.bound_seconds) <= ready:
                continue
            left = host.free_by(need, ready, now=self.now) - {device.name for device in devices}
            if len(left) < need.count:
                return kept
        return None

    def start(self, placement: Placement, *, ends_at: datetime | None = None) -> None:
        """The placed job runs from now on, in this picture; without ``ends_at`` until its time is up."""
        job = placement.job
        if ends_at is None:
            ends_at = self.now + timedelta(seconds=job.bound_seconds)
        placement.host.hold(placement.devices, Holder(job.id, job.owner_id, self.now, ends_at))
        share = self.shares[job.owner_id]
        share.running += 1
        share.used += self.rules.entry_seconds * self.rules.rate(job.need.gpus, job.need.cpu_slots)
        self.take_out(job)

    def take_out(self, job: Waiting) -> None:
        """The job waits no more."""
        self.reservations = [kept for kept in self.reservations if kept.job.id != job.id]
        lane = self.lanes[job.lane]
        if len(lane.jobs) == 1:
            lane.extend(lane)
        lane.jobs.remove(job)
        for key in self._own[job.owner_id]:
            each, turn = self.lanes[key], self._turns[key]
            queue = self._queues[each.need]
            del queue[bisect_left(queue, (turn, key))]
            if each.jobs:
                self._turns[key] = self._turn(each)
                insort(queue, (self._turns[key], key))
        if not lane.jobs:
            del self.lanes[lane.key], self._turns[lane.key]
            self._own[job.owner_id].remove(lane.key)
            if not self._queues[lane.need]:
                del self._queues[lane.need]

    def release(self, host: Host, job_id: str) -> None:
        """A running job has ended, in this picture."""
        host.release(job_id)
        self._room = {need: seen for need, seen in self._room.items() if seen is not None}

    def better_hosts(self) -> list[Reservation]:
        """Hosts to keep in the place of others, where a job would have its devices much earlier than where it waits for them now.

        What was expected when its host was chosen may have turned out otherwise. Those that stand first choose first.
        """
        found: list[Reservation] = []
        for kept in sorted(self.reservations, key=lambda kept: self.standing(kept.job)):
            need, taken = kept.job.need, {other.worker_id for other in [*self.reservations, *found]}
            ready = {host.worker_id: host.ready_at(need, now=self.now) for host in self.hosts_for(need)}
            stays = ready.get(kept.worker_id)
            first, worker_id = min(
                ((time, worker_id) for worker_id, time in ready.items() if time is not None and worker_id not in taken),
                default=(None, ""),
            )
            if first is None or self.shares[kept.job.owner_id].is_full:
                continue
            if stays is None or stays - first > max(MUCH_EARLIER, (stays - self.now) / 2):
                found.append(Reservation(kept.job, worker_id))
        return found

    def reservation_of(self, job: Waiting) -> Reservation | None:
        """The host that is kept for a job."""
        return next((kept for kept in self.reservations if kept.job.id == job.id), None)

    def binding(self, host: Host, job: Waiting) -> list[Reservation]:
        """The reservations on a host that bind a job: those for others of its kind that wait in no worse a class.

        Those that go first come first. Where the host is kept for the job too, only those that go before it.
        """
        others = [
            kept
            for kept in self.reservations
            if kept.worker_id == host.worker_id
            and kept.job.id != job.id
            and kept.job.need.kind == job.need.kind
            and kept.job.queue_class <= job.queue_class
            and not self.shares[kept.job.owner_id].is_full
        ]
        others.sort(key=lambda kept: self.standing(kept.job))
        own = self.reservation_of(job) if others else None
        if own is None or own.worker_id != host.worker_id:
            return others
        return [kept for kept in others if self.standing(kept.job) < self.standing(job)]

    def standing(self, job: Waiting) -> tuple[int, bool, float, Turn]:
        """Orders the jobs that one host is kept for; nobody stops others for one that only rose to a class of high priority."""
        return job.queue_class, job.priority != Priority.HIGH, self.shares[job.owner_id].level, job.turn

    def hosts_for(self, need: Need) -> list[Host]:
        """Those that could hold it, were they free."""
        if need not in self._serving:
            self._serving[need] = [host for host in self.find_hosts() if not host.draining and host.could_hold(need)]
        return self._serving[need]

    # ---------------------------------------------------------------- below: in the order of their calls

    def _next(self, fitting: Mapping[Need, Sequence[Host]]) -> Placement | None:
        """The first that may start on one of the hosts that fit its need; where none does, a host may come to be kept for it."""
        looked_at = [need for need, hosts in fitting.items() if hosts or self._may_be_kept_for(need)]
        windows = 0
        for _, key in merge(*(self._queues[need] for need in looked_at)):
            lane = self.lanes[key]
            if self.shares[lane.owner_id].is_full:
                continue
            if not fitting[lane.need]:
                self._reserve(lane.head)
            for host in fitting[lane.need]:
                devices = host.pick(lane.need)
                if devices is None:
                    continue
                jobs = lane.jobs[:1]
                if windows < MAX_WINDOWS and self.binding(host, lane.head):
                    jobs, windows = lane.window(), windows + 1
                for job in jobs:
                    if self.hindrance(host, job, devices) is None:
                        return Placement(job, host, devices)
        return None

    def _turn(self, lane: Lane) -> _Turn:
        return lane.key[0], self.shares[lane.owner_id].level, lane.head.turn

    def _may_be_kept_for(self, need: Need) -> bool:
        """Whether a host may be kept for a job of this need. One device comes free by itself."""
        return need.count > 1 and self._queues[need][0][0][0] < self._best_kept_class(need.kind)

    def _best_kept_class(self, kind: Kind) -> int:
        """That of the jobs which hosts are kept for until enough devices are free: one at a time in each class."""
        kept = (each.job for each in self.reservations if each.job.need.kind == kind and each.job.need.count > 1)
        return min((job.queue_class for job in kept if not self.shares[job.owner_id].is_full), default=Priority.LOW + 1)

    def _reserve(self, job: Waiting) -> None:
        """Keeps a host for a job that is about to be passed, if it has waited long enough and fits nowhere now."""
        if (self.now - job.waiting_since).total_seconds() < self.rules.reserve_after_seconds:
            return
        if job.queue_class >= self._best_kept_class(job.need.kind) or self._has_room(job.need):
            return
        ready = [(time, host) for host in self.hosts_for(job.need) if (time := host.ready_at(job.need, now=self.now))]
        if not ready or self.reservation_of(job) is not None:
            return
        first = min(time for time, _ in ready)
        worker_id = min((-host.num_free(job.need), host.worker_id) for time, host in ready if time == first)[1]
        reservation = Reservation(job, worker_id)
        self.reservations.append(reservation)
        self.made.append(reservation)

    def _has_room(self, need: Need) -> bool:
        """Whether the need fits somewhere now."""
        seen = self._room.get(need)
        if seen is not None and seen.pick(need) is None:
            del self._room[need]
        if need not in self._room:
            self._room[need] = next((host for host in self.hosts_for(need) if not host.is_full and host.pick(need)), None)
        return self._room[need] is not None

    def _roomy_for(self, need: Need) -> deque[Host]:
        """Hosts of which the first has room for the need now, and the others may have; empty where none has."""
        if need not in self._roomy:
            self._roomy[need] = deque(host for host in self.hosts_for(need) if host.pick(need) is not None)
        hosts = self._roomy[need]
        while hosts and hosts[0].pick(need) is None:
            hosts.popleft()
        return hosts

    def _is_open(self) -> bool:
        """Whether some host has a free device: others claim nothing, and so keep no host for anybody."""
        if self._open is None:
            self._open = deque(host for host in self.find_hosts() if not host.draining)
        while self._open and self._open[0].is_full:
            self._open.popleft()
        return bool(self._open)
