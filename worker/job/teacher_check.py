"""Whether a teacher knows the task, by its score on validation, before anything is learnt from it.

A given teacher that scores no better than a constant guess, or far below what its card reports, stops the job unless the spec
accepts any score: its classes, pixels, tokens or units are most probably read otherwise than it was trained on. One that was
trained here may be as good as its data allow: it stops the job only where the spec says so. What does not stop the job is a
warning. N rows, W outputs, M tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.spec.job import TeacherSpec
from service.spec.methods import DeepMutual
from service.spec.tasks import TASKS, TaskName
from service.spec.warning_message import WarningMessage
from worker.data import Split, UnusableData
from worker.data.tensors import only_tensor
from worker.distributed.ranks import ProcessGroup
from worker.errors import JobFault
from worker.evaluation.evaluate import predict, score_labelled
from worker.evaluation.evidence import Measured, measure, measure_tokens, token_frequencies, wilson_interval
from worker.job.networks import Networks
from worker.job.reporting import PhaseReporter
from worker.job.resume import JobState
from worker.job.roles import Role
from worker.models.language_network import LanguageNetwork
from worker.models.reported import METRICS
from worker.targets import Targets
from worker.trained import TrainedNetwork

_FREQUENCY_TEXTS = 2_000
"""Of the training split, for the frequencies of tokens."""
_ROWS_AT_ONCE, _TEXTS_AT_ONCE = 16, 64
"""Between two looks at the clock; packed texts need some more, to fill a row."""
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

    def judge(self, measured: Sequence[Measured]) -> list[WarningMessage]:
        """Judges a teacher by its scores on validation; returns what to know of it.

        Raises:
            JobFault: ``teacher_unfit``, if the spec does not accept such a score.
        """
        if not measured:
            message = f"{self._name} was not scored before the training: the validation split has no labels that tell it apart."
            return [WarningMessage(code="teacher_unscored", message=message)] if self.is_given else []
        accepted = self.spec.accept_score
        worst = next((each for each in measured if each.is_at_chance), None)
        near = worst or next((each for each in measured if each.is_near_chance), None)
        if near is not None:
            of = f" of {near.target!r}" if len(measured) > 1 else ""
            words = "not shown to be better" if worst is None else "no better"
            found = f"{self._name} is {words} than a constant guess{of}: it has {near} of the validation split."
            stops = accepted == "above-chance" or (accepted is None and self.is_given and worst is not None)
            return [self._found("teacher_at_chance", found, near, stops=stops)]
        reported = self._reported(measured)
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
        return f"The teacher {self.teacher.source}" if self.is_given else "The teacher that this job trained"

    def _found(
        self, code: str, message: str, measured: Measured, *, stops: bool, reported: float | None = None
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
                "target": measured.target,
                "score": measured.score,
                "constant_guess": measured.constant,
                "rows": measured.rows,
                **({} if reported is None else {"reported": reported}),
            },
        )

    @property
    def _advice(self) -> str:
        if not self.is_given:
            return "Train it for longer or otherwise, and look whether the labels can be told from the inputs at all."
        return (
            "Most probably its classes mean something else, or stand in another order, than its config.json says (id2label); "
            f"{_CAUSES[TASKS[self.task].input_kind]}; or its numbers have other units."
        )

    def _reported(self, measured: Sequence[Measured]) -> tuple[str, float, Measured] | None:
        """The reported score that one target's is far below, with its name; None if it is not, or nothing is reported.

        Far is: by more than both intervals, where the card's is that of as many rows, and by more than half of the way from the
        reported score to a constant guess's.
        """
        (ours, *others) = measured
        name = METRICS[ours.kind]
        value = self.teacher.reported.get(name) if self.is_given and not others else None
        if value is None or ours.kind == "tokens":
            return None
        least = wilson_interval(value, ours.rows)[0] if ours.kind == "classes" else value
        is_far = ours.interval[1] < least and ours.score < (value + ours.constant) / 2
        return (name, value, ours) if is_far else None


def check_on_validation(
    role: Role, teacher: TrainedNetwork, *, networks: Networks, state: JobState, phases: PhaseReporter, group: ProcessGroup
) -> list[WarningMessage]:
    """Scores a teacher on the whole validation split, unless ``state`` has its score; returns what to know of it.

    Raises:
        JobFault: ``teacher_unfit``, if the spec does not accept its score.
        StopAsked: a stop was requested.
    """
    targets, splits = networks.data.targets, networks.data.splits
    if role in state.teacher_scores or targets.are_embeddings:
        return list(teacher.warnings)
    is_given, validation = not networks.is_trained(role), teacher.samples(splits["validation"])
    if is_given:
        phases.start("teacher", f"Scoring the {role} {teacher.source} on {len(validation):,} validation samples")

    def after_batch(done: int) -> None:
        if is_given:
            phases.report("teacher", done, total=len(validation))
        else:
            phases.check_stop()

    outputs = _checked(teacher, predict(teacher.network, validation, after_batch=after_batch, group=group))
    check = TeacherCheck(
        networks.teachers[role],
        teacher,
        networks.data.task,
        pointer=networks.spec_path(role),
        is_given=is_given,
        may_stop=not isinstance(networks.spec.method, DeepMutual),
    )
    found = check.judge(measure_network(teacher, outputs, splits["validation"], splits["train"], targets))
    state.teacher_scores[role] = score_labelled(outputs, splits["validation"].labels, targets, only=teacher.teaches)
    return [*teacher.warnings, *found]


def measure_network(network: TrainedNetwork, outputs: Tensor, split: Split, train: Split, targets: Targets) -> list[Measured]:
    """Measures a network's outputs (N, W), or (M, 3) of tokens, on a split. Embeddings have nothing to be compared with."""
    if targets.are_embeddings:
        return []
    if targets.are_tokens:
        return [measure_tokens(outputs, _frequencies(network, train))]
    return measure(outputs, split.labels, targets, only=network.teaches)


def measure_some(
    teacher: TrainedNetwork, validation: Split, train: Split, targets: Targets, *, is_over: Callable[[], bool]
) -> list[Measured]:
    """Measures a teacher on validation rows in random order, until ``is_over`` says that the time is over."""
    shuffled = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0))
    outputs, rows, end = [], 0, 0
    for chosen in torch.split(shuffled, _TEXTS_AT_ONCE if targets.are_tokens else _ROWS_AT_ONCE):
        end += len(chosen)
        try:
            samples = teacher.samples(validation.at(shuffled[rows:end]))
        except UnusableData:
            pass  # so few texts may not fill a row of tokens: the next ones come beside them
        else:
            outputs.append(_checked(teacher, predict(teacher.network, samples)))
            rows = end
        if is_over():
            break
    if not outputs:
        return []
    return measure_network(teacher, torch.cat(outputs), validation.at(shuffled[:rows]), train, targets)


def _checked(teacher: TrainedNetwork, outputs: Tensor) -> Tensor:
    """The outputs in the job's order. Raises JobFault if one is not finite."""
    if not bool(outputs.isfinite().all()):
        raise JobFault(
            "non_finite_loss",
            f"The outputs of the teacher {teacher.source} on the validation split hold NaN or infinity.",
            hint="Choose another teacher, or train it again at a lower learning rate.",
        )
    return teacher.reorder(outputs)


def _frequencies(teacher: TrainedNetwork, train: Split) -> Tensor:
    """How frequent each token of the teacher's vocabulary is in some texts of the training split: (V,)."""
    network = teacher.network
    if not isinstance(network, LanguageNetwork):
        raise TypeError("only a language model has a vocabulary")
    few = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:_FREQUENCY_TEXTS]
    rows = teacher.samples(train.at(few.sort().values))
    return token_frequencies(only_tensor(rows.inputs)[:, 1:][rows.labels[:, 1:].bool()], network.head.weight.shape[0])
