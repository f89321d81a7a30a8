"""The short form of ``make faults``: some faults over some jobs, by a fixed seed."""

import importlib
from functools import reduce

import pytest

from tests.conftest import own_folder, required_program
from tests.faults.clocks import faketime_library
from tests.faults.crash_points.sitecustomize import POINTS
from tests.faults.faults import FAULTS
from tests.faults.run import Plan, run

_TRIED = {
    "a trainer is killed",
    "a worker freezes past its lease",
    "an API is killed",
    "a clock jumps",
    "PostgreSQL is read-only",
    "connections to PostgreSQL are reset",
    "Valkey becomes a replica",
    "a message is poison",
    "an empty folder is in the store's place",
    "a crash before a submission is committed",
    "a crash after a submission is committed",
}
"""Those that take the fewest seconds."""


def test_faults_lose_double_and_leave_nothing() -> None:
    plan = Plan(
        seed=5,
        num_faults=6,
        num_jobs=4,
        num_people=4,
        pause_seconds=0.5,
        kinds=("softened",),
        faults=[fault for fault in FAULTS if fault.name in _TRIED],
        replica=False,
        faketime=faketime_library(required_program("faketime")),
    )
    told: list[str] = []
    with own_folder() as folder:
        outcome = run(plan, folder, told.append)
    assert not outcome.broken, "\n".join([*told, *map(str, outcome.broken)])
    assert len(outcome.made) == plan.num_faults


@pytest.mark.parametrize("point", POINTS)
def test_a_named_point_is_where_its_name_says(point: str) -> None:
    module, place, _ = POINTS[point]
    assert callable(reduce(getattr, place.split("."), importlib.import_module(module)))
