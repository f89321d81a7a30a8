"""The short form of ``make faults``: some faults over some jobs, by a fixed seed."""

from pathlib import Path

from tests.conftest import own_folder, required_program
from tests.faults.clocks import faketime_library
from tests.faults.faults import FAULTS
from tests.faults.run import Plan, run

_TRIED = {
    "an API is killed",
    "an API freezes",
    "a clock jumps",
    "connections to PostgreSQL are reset",
    "Valkey is killed",
    "the store is away",
    "a crash before a submission is committed",
    "a crash after a submission is committed",
}


def test_faults_lose_double_and_leave_nothing() -> None:
    plan = Plan(
        seed=1,
        num_faults=5,
        num_jobs=4,
        num_people=3,
        pause_seconds=0.7,
        kinds=("softened",),
        faults=[fault for fault in FAULTS if fault.name in _TRIED],
        replica=False,
        faketime=faketime_library(required_program("faketime")),
    )
    told: list[str] = []
    with own_folder() as folder:
        outcome = run(plan, Path(folder), told.append)
    assert not outcome.broken, "\n".join([*told, *map(str, outcome.broken)])
    assert len(outcome.made) == plan.num_faults
