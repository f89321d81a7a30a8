"""The scheduling policy: which job starts next, and where, given a snapshot of one pool. No I/O.

Waiting jobs are ordered by class (aging puts a job into a better one than its priority), then by the owner's usage divided by the
owner's weight, then by the job's own priority, then by age. A claim takes the first of them that fits the free devices of its
host. A job that fits nowhere does not delay the others until it has waited long enough: then it gets a reservation of one host,
and there only jobs that will end before its devices are free, or that leave it enough of them, may still start (EASY backfilling:
Lifka, The ANL/IBM SP scheduling system, 1995).

The claim and the explanations of the API use the same functions, so an explanation is what would happen.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import merge

from service.lifecycle import Priority
from service.queue_policy import QueuePolicy
from service.scheduling.hosts import Device, Holder, Host, Kind, Need

SortKey = tuple[int, datetime, str]
"""Own priority, age, id: the order of the jobs of one user and class."""
_FlowSortKey = tuple[int, float, SortKey]
FlowKey = tuple[int, str, str]
"""Class, owner, resource class."""
WINDOW = 100
"""Jobs of one flow that are searched for one that is short enough to start beside a reservation."""
MAX_WINDOWS = 10
"""Flows that one claim searches so; of the others only the first job is tried."""
MUCH_EARLIER = timedelta(minutes=5)
"""A reservation moves to a host that is earlier by at least this, and by half of the wait: not for every new estimate."""


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
    resource_class: str
    """The need as one word: jobs of one class fit wherever one of them does."""
    bound_seconds: float
    """Seconds until its time limit stops it: an upper bound of how long it runs."""
    ran_seconds: float = 0.0
    """Seconds in earlier attempts."""

    @property
    def flow(self) -> FlowKey:
        """The flow that it waits in."""
        return self.queue_class, self.owner_id, self.resource_class

    @property
    def sort_key(self) -> SortKey:
        """Orders the jobs of one user and class."""
        return self.priority, self.queued_at, self.id


@dataclass
class Share:
    """A user's fair share: weight, usage and limit."""

    owner_id: str
    name: str
    weight: float = 1.0
    used: float = 0.0
    """Decayed GPU-seconds."""
    running: int = 0
    max_running: int | None = None

    @property
    def level(self) -> float:
        """Usage per weight: users of a lower level go first."""
        return self.used / self.weight

    @property
    def is_full(self) -> bool:
        """Whether the user's limit lets no further job start before one has ended."""
        return self.max_running is not None and self.running >= self.max_running


@dataclass
class Flow:
    """The waiting jobs of one user, class and resource class, in order: where the first does not fit, none does."""

    key: FlowKey
    need: Need
    jobs: list[Waiting]
    """The first jobs of the flow; never empty."""
    extend: Callable[["Flow"], None] = lambda flow: None
    """Adds the jobs that come after ``reached``, if there are more."""
    reached: SortKey = field(init=False)
    """Sort key of the last job that was read, whether it still waits or not."""

    def __post_init__(self) -> None:
        self.reached = self.jobs[-1].sort_key

    @property
    def owner_id(self) -> str:
        return self.key[1]

    @property
    def head(self) -> Waiting:
        return self.jobs[0]

    def copy(self) -> "Flow":
        """A flow whose jobs can be removed without a change to this one; further jobs that it reads are added to this one too."""

        def extend(copied: Flow) -> None:
            if copied.reached == self.reached:
                self.extend(self)
            copied.add(self.jobs[bisect_right(self.jobs, copied.reached, key=lambda job: job.sort_key) :])

        copied = Flow(self.key, self.need, list(self.jobs), extend)
        copied.reached = self.reached
        return copied

    def add(self, jobs: Sequence[Waiting]) -> None:
        """Appends the jobs that come next."""
        if jobs:
            self.jobs += jobs
            self.reached = jobs[-1].sort_key

    def window(self) -> list[Waiting]:
        """The first ``WINDOW`` jobs."""
        if len(self.jobs) < WINDOW:
            self.extend(self)
        return self.jobs[:WINDOW]


@dataclass(frozen=True)
class Reservation:
    """A host that is reserved for a job: its devices are for the job as they come free."""

    job: Waiting
    worker_id: str


@dataclass(frozen=True)
class Placement:
    """A job that may start, and the devices that it starts on."""

    job: Waiting
    host: Host
    devices: tuple[Device, ...]


@dataclass
class Snapshot:
    """The state of one pool at one moment. Starts and ends of jobs change it, so that the policy can be simulated ahead."""

    pool: str
    now: datetime
    queue_policy: QueuePolicy
    shares: Mapping[str, Share]
    flows: dict[FlowKey, Flow]
    reservations: list[Reservation]
    find_hosts: Callable[[], Sequence[Host]]
    """Reads all hosts with a recent heartbeat; called only if one host is not enough to decide."""
    new_reservations: list[Reservation] = field(default_factory=list)
    """Reservations that :meth:`next_for` added."""
    _queues: dict[Need, list[tuple[_FlowSortKey, FlowKey]]] = field(init=False, default_factory=dict)
    """The flows of each need, in the order of their first jobs."""
    _sort_keys: dict[FlowKey, _FlowSortKey] = field(init=False, default_factory=dict)
    _own: dict[str, set[FlowKey]] = field(init=False, default_factory=dict)
    """Each user's flows."""
    _room: dict[Need, Host | None] = field(init=False, default_factory=dict)
    """A host that a need fitted on when it was last tried; None if it fitted on none."""
    _serving: dict[Need, list[Host]] = field(init=False, default_factory=dict)
    _roomy: dict[Need, deque[Host]] = field(init=False, default_factory=dict)
    """Hosts that a need fitted on when the snapshot was taken; some may be too full since."""
    _open: deque[Host] | None = field(init=False, default=None)
    """Hosts that had a free device when the snapshot was taken; some may be full since."""

    def __post_init__(self) -> None:
        for key, flow in self.flows.items():
            self._sort_keys[key] = self._sort_key(flow)
            self._own.setdefault(flow.owner_id, set()).add(key)
            self._queues.setdefault(flow.need, []).append((self._sort_keys[key], key))
        for queue in self._queues.values():
            queue.sort()

    def copy(self) -> "Snapshot":
        """A snapshot whose jobs can be started and ended without a change to this one."""
        hosts = [replace(host, held=dict(host.held)) for host in self.find_hosts()]
        return replace(
            self,
            shares={owner_id: replace(share) for owner_id, share in self.shares.items()},
            flows={key: flow.copy() for key, flow in self.flows.items()},
            reservations=list(self.reservations),
            find_hosts=lambda: hosts,
            new_reservations=[],
        )

    def next_for(self, host: Host) -> Placement | None:
        """The job that a claim of this host takes; None if no job that may start fits its free devices."""
        if host.draining or host.is_full:
            return None
        return self._next({need: [host] if host.pick(need) else [] for need in self._queues})

    def simulate(self) -> tuple["Snapshot", dict[str, Placement]]:
        """A copy in which every job has started that could start at this moment; and these jobs' placements."""
        simulated = self.copy()
        starting: dict[str, Placement] = {}
        while (placement := simulated.next_anywhere()) is not None:
            starting[placement.job.id] = placement
            simulated.start(placement)
        return simulated, starting

    def next_anywhere(self) -> Placement | None:
        """The first job in the queue that may start somewhere, as if all hosts claimed at once; None if none may.

        Only for a snapshot in which jobs start and none ends.
        """
        if not self._is_open():
            return None
        return self._next({need: self._roomy_for(need) for need in self._queues})

    def blocking_reservation(self, host: Host, job: Waiting, devices: Sequence[Device]) -> Reservation | None:
        """The reservation that keeps a job from starting on these devices; None if none does."""
        together = 0
        for reservation in self.binding_reservations(host, job):
            together += reservation.job.need.count
            need = reservation.job.need.times(together)
            ready = host.ready_at(need, now=self.now)
            if ready is None or self.now + timedelta(seconds=job.bound_seconds) <= ready:
                continue
            left = host.free_by(need, ready, now=self.now) - {device.name for device in devices}
            if len(left) < need.count:
                return reservation
        return None

    def start(self, placement: Placement, *, ends_at: datetime | None = None) -> None:
        """Starts the placed job in this snapshot; without ``ends_at`` it runs until its time limit."""
        job = placement.job
        if ends_at is None:
            ends_at = self.now + timedelta(seconds=job.bound_seconds)
        placement.host.hold(placement.devices, Holder(job.id, job.owner_id, self.now, ends_at))
        share = self.shares[job.owner_id]
        share.running += 1
        share.used += self.queue_policy.entry_charge(job.need.gpus, job.need.cpu_slots)
        self.take_out(job)

    def take_out(self, job: Waiting) -> None:
        """Removes a job from the queue."""
        self.reservations = [reservation for reservation in self.reservations if reservation.job.id != job.id]
        flow = self.flows[job.flow]
        if len(flow.jobs) == 1:
            flow.extend(flow)
        flow.jobs.remove(job)
        for key in self._own[job.owner_id]:
            each, sort_key = self.flows[key], self._sort_keys[key]
            queue = self._queues[each.need]
            del queue[bisect_left(queue, (sort_key, key))]
            if each.jobs:
                self._sort_keys[key] = self._sort_key(each)
                insort(queue, (self._sort_keys[key], key))
        if not flow.jobs:
            del self.flows[flow.key], self._sort_keys[flow.key]
            self._own[job.owner_id].remove(flow.key)
            if not self._queues[flow.need]:
                del self._queues[flow.need]

    def release(self, host: Host, job_id: str) -> None:
        """Ends a running job in this snapshot."""
        host.release(job_id)
        self._room = {need: seen for need, seen in self._room.items() if seen is not None}

    def better_reservations(self) -> list[Reservation]:
        """Reservations to move: those whose job would have its devices much earlier on another host, which each of them names.

        The estimates by which its host was chosen may have changed since. The first in order choose first.
        """
        found: list[Reservation] = []
        for reservation in sorted(self.reservations, key=lambda reservation: self.sort_key(reservation.job)):
            need, taken = reservation.job.need, {other.worker_id for other in [*self.reservations, *found]}
            ready = {host.worker_id: host.ready_at(need, now=self.now) for host in self.hosts_for(need)}
            stays = ready.get(reservation.worker_id)
            first, worker_id = min(
                ((time, worker_id) for worker_id, time in ready.items() if time is not None and worker_id not in taken),
                default=(None, ""),
            )
            if first is None or self.shares[reservation.job.owner_id].is_full:
                continue
            if stays is None or stays - first > max(MUCH_EARLIER, (stays - self.now) / 2):
                found.append(Reservation(reservation.job, worker_id))
        return found

    def reservation_of(self, job: Waiting) -> Reservation | None:
        """The reservation of a job; None if it has none."""
        return next((reservation for reservation in self.reservations if reservation.job.id == job.id), None)

    def binding_reservations(self, host: Host, job: Waiting) -> list[Reservation]:
        """The reservations of a host that bind a job: those of other jobs of its device kind in no worse class, in order.

        If the job has a reservation of that host itself, only the ones before its own.
        """
        others = [
            reservation
            for reservation in self.reservations
            if reservation.worker_id == host.worker_id
            and reservation.job.id != job.id
            and reservation.job.need.kind == job.need.kind
            and reservation.job.queue_class <= job.queue_class
            and not self.shares[reservation.job.owner_id].is_full
        ]
        others.sort(key=lambda reservation: self.sort_key(reservation.job))
        own = self.reservation_of(job) if others else None
        if own is None or own.worker_id != host.worker_id:
            return others
        return [reservation for reservation in others if self.sort_key(reservation.job) < self.sort_key(job)]

    def sort_key(self, job: Waiting) -> tuple[int, bool, float, SortKey]:
        """Orders the reservations of one host; a job of high priority comes before one that only aged into its class."""
        return job.queue_class, job.priority != Priority.HIGH, self.shares[job.owner_id].level, job.sort_key

    def hosts_for(self, need: Need) -> list[Host]:
        """The hosts that could hold the need if nothing ran on them."""
        if need not in self._serving:
            self._serving[need] = [host for host in self.find_hosts() if not host.draining and host.could_hold(need)]
        return self._serving[need]

    # ---------------------------------------------------------------- below: in the order of their calls

    def _next(self, fitting: Mapping[Need, Sequence[Host]]) -> Placement | None:
        """The first job that may start on one of the hosts that fit its need; a job that fits on none may get a reservation."""
        looked_at = [need for need, hosts in fitting.items() if hosts or self._may_reserve_for(need)]
        windows = 0
        for _, key in merge(*(self._queues[need] for need in looked_at)):
            flow = self.flows[key]
            if self.shares[flow.owner_id].is_full:
                continue
            if not fitting[flow.need]:
                self._reserve(flow.head)
            for host in fitting[flow.need]:
                devices = host.pick(flow.need)
                if devices is None:
                    continue
                jobs = flow.jobs[:1]
                if windows < MAX_WINDOWS and self.binding_reservations(host, flow.head):
                    jobs, windows = flow.window(), windows + 1
                for job in jobs:
                    if self.blocking_reservation(host, job, devices) is None:
                        return Placement(job, host, devices)
        return None

    def _sort_key(self, flow: Flow) -> _FlowSortKey:
        return flow.key[0], self.shares[flow.owner_id].level, flow.head.sort_key

    def _may_reserve_for(self, need: Need) -> bool:
        """Whether a job of this need may get a reservation. A single device comes free by itself."""
        return need.count > 1 and self._queues[need][0][0][0] < self._best_reserved_class(need.kind)

    def _best_reserved_class(self, kind: Kind) -> int:
        """The best class of the jobs with a reservation of several devices: each class has one at a time."""
        reserved = (each.job for each in self.reservations if each.job.need.kind == kind and each.job.need.count > 1)
        return min((job.queue_class for job in reserved if not self.shares[job.owner_id].is_full), default=Priority.LOW + 1)

    def _reserve(self, job: Waiting) -> None:
        """Reserves a host for a job that others are about to overtake, if it has waited long enough and fits nowhere now."""
        if (self.now - job.waiting_since).total_seconds() < self.queue_policy.reserve_after_seconds:
            return
        if job.queue_class >= self._best_reserved_class(job.need.kind) or self._has_room(job.need):
            return
        ready = [(time, host) for host in self.hosts_for(job.need) if (time := host.ready_at(job.need, now=self.now))]
        if not ready or self.reservation_of(job) is not None:
            return
        first = min(time for time, _ in ready)
        worker_id = min((-host.num_free(job.need), host.worker_id) for time, host in ready if time == first)[1]
        reservation = Reservation(job, worker_id)
        self.reservations.append(reservation)
        self.new_reservations.append(reservation)

    def _has_room(self, need: Need) -> bool:
        """Whether the need fits somewhere now."""
        seen = self._room.get(need)
        if seen is not None and seen.pick(need) is None:
            del self._room[need]
        if need not in self._room:
            self._room[need] = next((host for host in self.hosts_for(need) if not host.is_full and host.pick(need)), None)
        return self._room[need] is not None

    def _roomy_for(self, need: Need) -> deque[Host]:
        """Hosts of which the first has room for the need now, and the others may have; empty if none has."""
        if need not in self._roomy:
            self._roomy[need] = deque(host for host in self.hosts_for(need) if host.pick(need) is not None)
        hosts = self._roomy[need]
        while hosts and hosts[0].pick(need) is None:
            hosts.popleft()
        return hosts

    def _is_open(self) -> bool:
        """Whether some host has a free device: full hosts claim nothing, so they make no reservation either."""
        if self._open is None:
            self._open = deque(host for host in self.find_hosts() if not host.draining)
        while self._open and self._open[0].is_full:
            self._open.popleft()
        return bool(self._open)
