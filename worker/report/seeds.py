"""A student trained again from other seeds, so that a report can say how far its figure depends on chance.

A repeat differs from the job's own student in its initial weights and the order of its samples, not in its data or its teacher.
"""

from collections.abc import Sequence

from service.spec import JobSpec
from worker.evaluation.evaluate import Measure
from worker.evaluation.metrics import interval_95
from worker.report.build import Interval, SeedsCard

_MARK = "@"


def repeat_of(kind: str, seed: int) -> str:
    """The role of a repeat of the ``student`` or the ``control``."""
    return f"{kind}{_MARK}{seed}"


def kind_of(role: str) -> str:
    """What a role is a repeat of; itself for one that is none."""
    return role.partition(_MARK)[0]


def seed_of(role: str, *, otherwise: int) -> int:
    """The seed of a repeat."""
    _, mark, seed = role.partition(_MARK)
    return int(seed) if mark else otherwise


def roles_of(spec: JobSpec) -> list[tuple[str, ...]]:
    """For each seed but the job's own, the roles to train: the student, and the control where there is one."""
    kinds = ("student", "control") if spec.evaluation.control else ("student",)
    seeds = [seed for seed in spec.evaluation.seeds if seed != spec.training.seed]
    return [tuple(repeat_of(kind, seed) for kind in kinds) for seed in seeds]


def seeds_card(spec: JobSpec, tests: dict[str, Measure]) -> SeedsCard | None:
    """What the repeats say, by role on the test split; ``tests`` holds the job's own student and control too."""
    if not spec.evaluation.seeds:
        return None
    students = _scores(spec, "student", tests)
    controls = _scores(spec, "control", tests) if spec.evaluation.control else None
    gains = None if controls is None else [ours - theirs for ours, theirs in zip(students, controls, strict=True)]
    return SeedsCard(
        seeds=spec.evaluation.seeds,
        student=_interval(students),
        control=None if controls is None else _interval(controls),
        gain=None if gains is None else _interval(gains),
    )


def _scores(spec: JobSpec, kind: str, tests: dict[str, Measure]) -> list[float]:
    roles = [kind if seed == spec.training.seed else repeat_of(kind, seed) for seed in spec.evaluation.seeds]
    return [tests[role].score for role in roles]


def _interval(values: Sequence[float]) -> Interval:
    mean, half_width = interval_95(values)
    return Interval(mean=mean, half_width=half_width, values=list(values))
