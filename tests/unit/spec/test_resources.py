import pytest
from pydantic import ValidationError

from service.spec.job import ResourceSpec


def test_several_cpu_slots_are_held_without_a_gpu() -> None:
    assert ResourceSpec(gpus=0, cpu_slots=2).cpu_slots == 2
    assert ResourceSpec(gpus=4, min_gpu_memory_gib=16.0).gpus == 4


def test_cpu_slots_beside_gpus_are_refused() -> None:
    with pytest.raises(ValidationError, match="set gpus to 0, or leave cpu_slots out"):
        ResourceSpec(gpus=1, cpu_slots=2)
