"""Whether a teacher knows the task, by its score on validation, before anything is learnt from it.

A given teacher that scores no better than a constant guess, or far below what its card reports, stops the job unless the spec
accepts any score: its classes, pixels, tokens or units are most probably read otherwise than it was trained on. One that was
trained here, from nothing or from what it knew, may be as good as its data allow: it stops the job only where the spec says so.
What does not stop the job is a warning. N rows, W outputs, M tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.spec.job import TeacherSpec
from service.spec.methods import DeepMutual
from service.spec.tasks import TaskName
from service.spec.warning_message import WarningMessage
from worker.data import Data, Split, UnusableData
from worker.data.samples import Samples
from worker.distributed.ranks import ProcessGroup
from worker.errors import JobFault
from worker.evaluation.evidence import GuessComparison
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.resume import JobState
from worker.job.roles import Role
from worker.tasks import TASKS
from worker.trained import TrainedNetwork

_CAUSES = {
    "image": "its images are of another kind, size or range of pixels (0 to 255, 0 to 1) than the dataset's",
    "text": "its texts are in another language, of another kind, or cut by another tokenizer",
    "audio": "its clips are of another kind, rate or length than the dataset's",
}


@dataclass(frozen=True)
class TeacherCheck:
    """A teacher that is to be checked, and how the spec has it."""

    spec: TeacherSpec
    teacher: TrainedNetwork
    task: TaskName
    pointer: str
    """Its place in the spec."""
    is_given: bool
    """Whether another than this job trained it."""
    may_stop: bool = True
    """Whether the job may still be stopped: not once the student is trained, as a peer is."""

    def judge(self, compared: Sequence[GuessComparison]) -> list[WarningMessage]:
        """Judges a teacher by its scores on validation; returns what to know of it.

        Raises:
            JobFault: ``teacher_unfit``, if the spec does not accept such a score.
        """
        if not compared:
            message = f"{self._name} was not scored before the training: the validation split has no labels that tell it apart."
            return [WarningMessage(code="teacher_unscored", message=message)] if self.is_given else []
        accepted = self.spec.accept_score
        worst = next((each for each in compared if each.is_at_chance), None)
        near = worst or next((each for each in compared if each.is_near_chance), None)
        if near is not None:
            of = f" of {near.target!r}" if len(compared) > 1 else ""
            words = "not shown to be better" if worst is None else "no better"
            found = f"{self._name} is {words} than a constant guess{of}: it has {near} of the validation split."
            stops = accepted == "above-chance" or (accepted is None and self.is_given and worst is not None)
            return [self._found("teacher_at_chance", found, near, stops=stops)]
        reported = self._reported(compared)
        if reported is not None:
            name, value, ours = reported
            found = (
                f"{self._name} is far below what its card reports ({name.replace('_', ' ')} {value:.4g}): "
                f"it has {ours} of the validation split."
            )
            return [self._found("teacher_below_its_card", found, ours, stops=accepted is None, reported=value)]
        return []

    @property
    def _name(self) -> str:
        if self.is_given:
            return f"The teacher {self.teacher.source}"
        return "The teacher that this job trained" if self.teacher.start is None else f"The fine-tuned {self.teacher.source}"

    def _found(
        self, code: str, message: str, found: GuessComparison, *, stops: bool, reported: float | None = None
    ) -> WarningMessage:
        if not (stops and self.may_stop):
            return WarningMessage(code=code, message=f"{message} {self._advice}")
        raise JobFault(
            "teacher_unfit",
            message,
            hint=f"{self._advice} To let it teach all the same, set accept_score to 'any' at /{self.pointer}.",
            details={
                "pointer": f"/{self.pointer}",
                "finding": code,
                "target": found.target,
                "score": found.score,
                "constant_guess": found.constant,
                "rows": found.rows,
                **({} if reported is None else {"reported": reported}),
            },
        )

    @property
    def _advice(self) -> str:
        if not self.is_given:
            return "Train it for longer or otherwise, and look whether the labels can be told from the inputs at all."
        return (
            "Most probably its classes mean something else, or stand in another order, than its config.json says (id2label); "
            f"{_CAUSES[TASKS[self.task].info.input_kind]}; or its numbers have other units. With a training it learns these data "
            "before it teaches."
        )

    def _reported(self, compared: Sequence[GuessComparison]) -> tuple[str, float, GuessComparison] | None:
        """The reported score that one target's is far below, with its name; None if it is not, or nothing is reported.

        Far is: by more than both intervals, where the card's is that of as many rows, and by more than half of the way from the
        reported score to a constant guess's.
        """
        (ours, *others) = compared
        name = ours.reported_as
        value = self.teacher.reported.get(name) if name is not None and self.is_given and not others else None
        if name is None or value is None:
            return None
        is_far = ours.interval[1] < ours.least_for(value) and ours.score < (value + ours.constant) / 2
        return (name, value, ours) if is_far else None


def check_on_validation(
    role: Role, teacher: TrainedNetwork, *, networks: Networks, state: JobState, phases: PhaseReporter, group: ProcessGroup
) -> list[WarningMessage]:
    """Scores a teacher on the whole validation split, unless ``state`` has its score; returns what to know of it.

    Raises:
        JobFault: ``teacher_unfit``, if the spec does not accept its score.
        StopAsked: a stop was requested.
    """
    data, split = networks.data, networks.data.splits["validation"]
    task = TASKS[data.task]
    if role in state.teacher_scores or task.labelled_by_teacher:
        return list(teacher.warnings)
    is_given, validation = not networks.specs.is_trained(role), teacher.samples(split)
    if is_given:
        phases.start("teacher", f"Scoring the {role} {teacher.source} on {len(validation):,} validation samples")

    def after_batch(done: int) -> None:
        if is_given:
            phases.report("teacher", done, total=len(validation))
        else:
            phases.check_stop()

    outputs = _checked(teacher, task.predict(teacher.network, validation, after_batch=after_batch, group=group))
    check = TeacherCheck(
        networks.specs.teachers[role],
        teacher,
        data.task,
        pointer=networks.specs.path(role),
        is_given=is_given,
        may_stop=not isinstance(networks.spec.method, DeepMutual),
    )
    found = check.judge(compare_with_guess(teacher, outputs, split, data))
    state.teacher_scores[role] = task.score_labelled(outputs, split.labels, data.targets, only=teacher.teaches)
    return [*teacher.warnings, *found]


def compare_with_guess(network: TrainedNetwork, outputs: Tensor, split: Split, data: Data) -> list[GuessComparison]:
    """Compares a network's score by its ``outputs`` on a split with that of a constant guess, by target."""

    def training_rows(count: int) -> Samples:
        train = data.splits["train"]
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
        return network.samples(train.at(drawn.sort().values))

    return TASKS[data.task].compare_with_guess(
        outputs, split.labels, data.targets, network=network.network, training_rows=training_rows, only=network.teaches
    )


def compare_some(teacher: TrainedNetwork, data: Data, *, is_over: Callable[[], bool]) -> list[GuessComparison] | None:
    """Compares a teacher with a constant guess on validation rows in random order, until ``is_over`` says to stop.

    None if by then no row was read, where so few texts do not fill one.
    """
    task, validation = TASKS[data.task], data.splits["validation"]
    shuffled = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0))
    outputs, rows, end = [], 0, 0
    for chosen in torch.split(shuffled, task.rows_at_once):
        end += len(chosen)
        try:
            samples = teacher.samples(validation.at(shuffled[rows:end]))
        except UnusableData:
            pass  # so few texts may not fill a row of tokens: the next ones come beside them
        else:
            outputs.append(_checked(teacher, task.predict(teacher.network, samples)))
            rows = end
        if is_over():
            break
    if not outputs:
        return None
    return compare_with_guess(teacher, torch.cat(outputs), validation.at(shuffled[:rows]), data)


def _checked(teacher: TrainedNetwork, outputs: Tensor) -> Tensor:
    """The outputs in the job's order. Raises JobFault if one is not finite."""
    if not bool(outputs.isfinite().all()):
        raise JobFault(
            "non_finite_loss",
            f"The outputs of the teacher {teacher.source} on the validation split hold NaN or infinity.",
            hint="Choose another teacher, or train it again at a lower learning rate.",
        )
    return teacher.reorder(outputs)
