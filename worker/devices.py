"""The devices of this worker, and which of them are free. A GPU serves one job; a CPU slot is a share of the host's cores."""

import os
import subprocess
import threading

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


def parse_devices(text: str) -> list[Device]:
    """Reads ``--devices``: ``auto``, or a list such as ``cpu:2,cuda:0,cuda:1``, where ``cpu:2`` is two CPU slots.

    Raises:
        ValueError: what it says is no device, or no device of this host.
    """
    gpus = {device.name: device for device in gpu_devices()}
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


def gpu_devices() -> list[Device]:
    """This host's GPUs, asked of the driver's own tool: asking CUDA here would make every forked trainer fail."""
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(",") for line in answer.splitlines() if line.strip())
    return [Device(f"cuda:{int(index)}", memory_gib=float(mebibytes) / 1024) for index, mebibytes in rows]
