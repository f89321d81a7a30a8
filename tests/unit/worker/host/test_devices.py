"""What a worker may use, from what the driver and CUDA's own variable say."""

import pytest

from service.scheduling import Device
from worker.host import devices
from worker.host.devices import host_memory_gib, parse_devices, read_gpus, visible_gpus

ANSWER = "0, GPU-aaaa1, 24576\n1, GPU-bbbb2, 81559\n2, GPU-cccc3, [N/A]\n"


def test_the_drivers_answer_is_read_with_a_memory_that_it_does_not_tell() -> None:
    assert [(gpu.index, gpu.memory_gib) for gpu in read_gpus(ANSWER)] == [("0", 24.0), ("1", 81559 / 1024), ("2", None)]


@pytest.mark.parametrize(
    ("visible", "memories"),
    [
        (None, [24.0, 81559 / 1024, None]),
        ("1", [81559 / 1024]),
        ("2,0", [None, 24.0]),
        ("GPU-bbbb", [81559 / 1024]),
        ("0,7,1", [24.0]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_counts_from_the_first_gpu_that_it_may_see(visible: str | None, memories: list[float | None]) -> None:
    devices = visible_gpus(read_gpus(ANSWER), visible)
    assert devices == [Device(f"cuda:{number}", memory_gib=memory) for number, memory in enumerate(memories)]


def test_cpu_slots_are_counted() -> None:
    assert parse_devices("cpu:3", visible="") == [Device("cpu:0"), Device("cpu:1"), Device("cpu:2")]


@pytest.mark.parametrize("text", ["cpu:0", "tpu", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_refused_with_what_may_be_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"Write cpu:SLOTS, cuda:N or auto"):
        parse_devices(text, visible="")


def test_cpu_slots_share_the_hosts_memory_or_what_its_container_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_limit_bytes", lambda: None)
    whole = host_memory_gib()
    assert whole is not None
    assert whole > 0.5
    monkeypatch.setattr(devices, "memory_limit_bytes", lambda: 2**29)
    assert host_memory_gib() == 0.5
