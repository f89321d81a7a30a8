"""The devices of this worker and which of them are free. A GPU runs one job; a CPU slot is a share of the host's cores."""

import os
import subprocess
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.scheduling import Device
from worker.host_memory import memory_limit_bytes

MAX_CPU_SLOTS = 1024


class DeviceLedger:
    """Which devices of this worker are free; thread-safe."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = tuple(devices)
        self._free = {device.name: device for device in devices}
        self.lock = threading.Lock()
        """Held from reading the free devices until the claimed ones are taken."""

    @property
    def threads_per_device(self) -> int:
        """CPU threads for each device that a trainer holds, so that full workers do not fight for cores."""
        return max(1, (os.cpu_count() or 1) // max(1, len(self.devices)))

    def free(self) -> tuple[Device, ...]:
        """The free devices; the caller holds ``lock``."""
        return tuple(device for device in self.devices if device.name in self._free)

    def take(self, names: Iterable[str]) -> None:
        """Takes free devices; the caller holds ``lock``."""
        for name in names:
            del self._free[name]

    def give_back(self, names: Iterable[str]) -> None:
        """Frees what :meth:`take` took."""
        with self.lock:
            self._free |= {device.name: device for device in self.devices if device.name in set(names)}


def parse_devices(text: str, *, visible: str | None = None) -> list[Device]:
    """Reads ``--devices``: ``auto``, or a list such as ``cpu:2,cuda:0,cuda:1``, where ``cpu:2`` is two CPU slots.

    ``visible`` is what CUDA_VISIBLE_DEVICES says; ``cuda:0`` is the first of those.

    Raises:
        ValueError: a name is no device, or no device of this host.
    """
    gpus = {device.name: device for device in visible_gpus(host_gpus(), visible)}
    if text == "auto":
        return [*gpus.values(), Device("cpu:0")]
    devices: list[Device] = []
    slots = 0
    for part in text.split(","):
        kind, _, number = part.strip().partition(":")
        if kind == "cpu" and (number or "1").isdigit() and 0 < int(number or "1") <= MAX_CPU_SLOTS:
            devices += [Device(f"cpu:{slot}") for slot in range(slots, slots + int(number or "1"))]
            slots += int(number or "1")
        elif part.strip() in gpus and gpus[part.strip()] not in devices:
            devices.append(gpus[part.strip()])
        else:
            found = ", ".join(gpus) or "no GPU"
            raise ValueError(
                f"--devices: {part.strip()!r} is not to be had; this host has {found}. Write cpu:SLOTS, cuda:N or auto"
            )
    return devices


@dataclass(frozen=True)
class Gpu:
    """A GPU of this host, as its driver reports it."""

    index: str
    uuid: str
    memory_gib: float | None
    """None if the driver does not report it."""


def host_gpus() -> list[Gpu]:
    """This host's GPUs in PCI bus order, by nvidia-smi: a process that has initialised CUDA cannot be forked."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return read_gpus(answer)


def read_gpus(answer: str) -> list[Gpu]:
    """One GPU a line: index, UUID, memory in MiB or something like ``[N/A]``."""
    rows = ([field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip())
    return [
        Gpu(index, uuid, float(mebibytes) / 1024 if mebibytes.replace(".", "").isdigit() else None)
        for index, uuid, mebibytes in rows
    ]


def visible_gpus(gpus: list[Gpu], visible: str | None) -> list[Device]:
    """CUDA's names of these GPUs with CUDA_VISIBLE_DEVICES ``visible``; as in CUDA, the list ends at an unknown entry."""
    seen: list[Gpu] = []
    for wanted in [gpu.index for gpu in gpus] if visible is None else visible.split(","):
        match = [gpu for gpu in gpus if wanted.strip() == gpu.index or (wanted.strip() and gpu.uuid.startswith(wanted.strip()))]
        if not match:
            break
        seen.append(match[0])
    return [Device(f"cuda:{number}", memory_gib=gpu.memory_gib) for number, gpu in enumerate(seen)]


def host_memory_gib() -> float | None:
    """Memory that the CPU slots of this host share: the host's, or its container's limit; None if it is unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    return min(memory, memory_limit_bytes() or memory) / 2**30
