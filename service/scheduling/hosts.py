"""Hosts, their devices and the jobs that hold them, and what a job needs of one host. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from service.capacity import whole_gib

Kind = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Need:
    """The devices that a job holds on one host while it runs."""

    gpus: int = 0
    cpu_slots: int = 1
    """Used only if ``gpus`` is 0."""
    gpu_gib: int | None = None
    """Memory of each GPU in whole GiB, rounded up."""

    @property
    def kind(self) -> Kind:
        return "gpu" if self.gpus else "cpu"

    @property
    def count(self) -> int:
        return self.gpus or self.cpu_slots

    def fits_wherever(self, other: "Need") -> bool:
        """Whether it fits on every set of devices that the other fits on."""
        return self.kind == other.kind and self.count <= other.count and (self.gpu_gib or 0) <= (other.gpu_gib or 0)

    def times(self, count: int) -> "Need":
        """The need for ``count`` of the same devices."""
        return replace(self, gpus=count) if self.gpus else replace(self, cpu_slots=count)

    def __str__(self) -> str:
        one = "a CPU slot" if self.kind == "cpu" else "a GPU"
        words = one if self.count == 1 else f"{self.count} {'CPU slots' if self.kind == 'cpu' else 'GPUs'}"
        return words if self.gpu_gib is None else f"{words} of {self.gpu_gib} GiB or more"


@dataclass(frozen=True)
class Device:
    """A GPU (``cuda:0``), or a slot of a host's CPU (``cpu:0``), which has no memory of its own."""

    name: str
    memory_gib: float | None = None

    @property
    def kind(self) -> Kind:
        return "cpu" if self.name.partition(":")[0] == "cpu" else "gpu"

    def suits(self, need: Need) -> bool:
        """Whether it can serve a need as one of its devices."""
        return self.kind == need.kind and whole_gib(self.memory_gib or 0.0) >= (need.gpu_gib or 0)


@dataclass(frozen=True)
class Holder:
    """A running job, as the jobs that wait for its devices see it."""

    job_id: str
    owner_id: str
    started_at: datetime
    ends_at: datetime
    """Expected by its measured steps; at the latest its time limit."""
    may_be_preempted: bool = False
    stopping: bool = False
    measured: bool = False
    """Whether ``ends_at`` comes from its steps and not from its time limit alone."""
    time_is_up_at: datetime | None = None
    """When its time limit stops it, if known."""


@dataclass
class Host:
    """A worker, its devices and the jobs that hold them."""

    worker_id: str
    name: str
    devices: tuple[Device, ...]
    draining: bool = False
    held: dict[str, Holder] = field(default_factory=dict)
    """By device name; devices that are missing are free."""
    _suitable: dict[Need, list[Device]] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether none of its devices is free."""
        return len(self.held) >= len(self.devices)

    def suitable(self, need: Need) -> list[Device]:
        """Its suitable devices, free or not; least memory first, so that the large ones stay free."""
        if (found := self._suitable.get(need)) is None:
            suiting = (device for device in self.devices if device.suits(need))
            found = self._suitable[need] = sorted(suiting, key=lambda device: device.memory_gib or 0.0)
        return found

    def could_hold(self, need: Need) -> bool:
        """Whether the need fits if nothing else runs here."""
        return len(self.suitable(need)) >= need.count

    def pick(self, need: Need) -> tuple[Device, ...] | None:
        """The free devices that the need would get; None if too few are free."""
        free = [device for device in self.suitable(need) if device.name not in self.held]
        return tuple(free[: need.count]) if len(free) >= need.count else None

    def num_free(self, need: Need) -> int:
        """Number of suitable devices that are free."""
        return sum(device.name not in self.held for device in self.suitable(need))

    def ready_at(self, need: Need, *, now: datetime) -> datetime | None:
        """When enough suitable devices should be free, by the expected ends of the jobs on them; None if the host has too few."""
        suitable, count = self.suitable(need), need.count
        if len(suitable) < count:
            return None
        ends = [holder.ends_at for device in suitable if (holder := self.held.get(device.name)) is not None]
        missing = count - (len(suitable) - len(ends))
        return now if missing <= 0 else max(now, sorted(ends)[missing - 1])

    def free_by(self, need: Need, time: datetime, *, now: datetime) -> set[str]:
        """Names of the suitable devices that should be free at ``time``."""
        return {device.name for device in self.suitable(need) if self._free_at(device, now) <= time}

    def hold(self, devices: Iterable[Device], holder: Holder) -> None:
        """Marks the devices as held by ``holder``."""
        self.held |= {device.name: holder for device in devices}

    def release(self, job_id: str) -> None:
        """Frees the devices of a job."""
        self.held = {name: holder for name, holder in self.held.items() if holder.job_id != job_id}

    def _free_at(self, device: Device, now: datetime) -> datetime:
        holder = self.held.get(device.name)
        return now if holder is None else max(now, holder.ends_at)
