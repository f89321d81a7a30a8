"""The devices of this worker, and which of them are free. A GPU serves one job; a CPU slot is a share of the host's cores."""

import os
import subprocess
import threading
from dataclasses import dataclass

from service.scheduling import Device, Offer


class DeviceLedger:
    """What is free on this worker; thread-safe."""

    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices
        self.cpu_slots = sum(device.name == "cpu" for device in devices)
        self._free = list(devices)
        self.lock = threading.Lock()
        """Held from looking at what is free until what was claimed is taken."""

    @property
    def threads_per_job(self) -> int:
        """CPU threads of one trainer, so that full slots do not fight for cores."""
        return max(1, (os.cpu_count() or 1) // max(1, len(self.devices)))

    def offer(self, *, worker_id: str, pool: str) -> Offer:
        """What is free now; the caller holds ``lock``."""
        return Offer(
            worker_id=worker_id,
            pool=pool,
            cpu_slots=sum(device.name == "cpu" for device in self._free),
            gpus=tuple(device for device in self._free if device.name != "cpu"),
        )

    def take(self, name: str) -> Device:
        """Takes a free device by name; the caller holds ``lock``."""
        device = next(device for device in self._free if device.name == name)
        self._free.remove(device)
        return device

    def give_back(self, device: Device) -> None:
        """Frees what :meth:`take` took."""
        with self.lock:
            self._free.append(device)


def parse_devices(text: str, *, visible: str | None = None) -> list[Device]:
    """Reads ``--devices``: ``auto``, or a list such as ``cpu:2,cuda:0,cuda:1``, where ``cpu:2`` is two CPU slots.

    ``visible`` is what CUDA_VISIBLE_DEVICES says; ``cuda:0`` is the first of those.

    Raises:
        ValueError: what it says is no device, or no device of this host.
    """
    gpus = {device.name: device for device in visible_gpus(host_gpus(), visible)}
    if text == "auto":
        return [*gpus.values(), Device("cpu")]
    devices: list[Device] = []
    for part in text.split(","):
        kind, _, number = part.strip().partition(":")
        if kind == "cpu" and (number or "1").isdigit() and int(number or "1") > 0:
            devices += [Device("cpu")] * int(number or "1")
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
    """A GPU of this host, as its driver tells of it."""

    index: str
    uuid: str
    memory_gib: float | None
    """None where the driver does not say."""


def host_gpus() -> list[Gpu]:
    """This host's GPUs in the order of their bus, asked of the driver's own tool: CUDA itself, once asked, cannot be forked."""
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
    """What CUDA will call these GPUs where CUDA_VISIBLE_DEVICES is ``visible``; like CUDA's, the list ends at an unknown one."""
    seen: list[Gpu] = []
    for wanted in [gpu.index for gpu in gpus] if visible is None else visible.split(","):
        match = [gpu for gpu in gpus if wanted.strip() == gpu.index or (wanted.strip() and gpu.uuid.startswith(wanted.strip()))]
        if not match:
            break
        seen.append(match[0])
    return [Device(f"cuda:{number}", memory_gib=gpu.memory_gib) for number, gpu in enumerate(seen)]
