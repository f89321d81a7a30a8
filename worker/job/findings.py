"""What the figures of a finished job do not show, in sentences: a student at chance, a control that is better.

Invariant: a sentence stands on an interval, so that few rows accuse nobody; where they are too few to tell, it says that.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from service.spec.gain_words import gain_words
from service.spec.warning_message import WarningMessage
from worker.evaluation.evidence import GuessComparison, Interval


def student_findings(compared: Sequence[GuessComparison]) -> Iterator[WarningMessage]:
    """What is found of a student by its scores on the test split, by target."""
    for each in compared:
        of = f" of {each.target!r}" if len(compared) > 1 else ""
        if each.is_worse:
            code, found = "student_below_constant", f"The student is worse than a constant guess{of}"
        elif each.is_near_chance:
            code, found = "student_at_chance", f"The student is no better than a constant guess{of}"
        elif not each.is_better:
            code, found = "student_not_shown_better", f"Whether the student is better than a constant guess{of} cannot be told"
        else:
            continue
        remedy = (
            "Measure it on more test rows."
            if code == "student_not_shown_better"
            else "Do not use it: look at the teacher's score, the labels and the length of the training."
        )
        yield WarningMessage(code=code, message=f"{found}: it has {each}. {remedy}")


def reference_findings(role: Literal["teacher", "control"], compared: Sequence[GuessComparison]) -> Iterator[WarningMessage]:
    """What is found of a network that the student is compared with by its scores on the test split, by target."""
    name, means = {
        "teacher": ("The teacher", "What the student has of it is worth as much"),
        "control": (
            "The control, the same student without the teacher,",
            "A gain over it does not say what the teacher is worth",
        ),
    }[role]
    for each in compared:
        if each.is_better:
            continue
        of = f" of {each.target!r}" if len(compared) > 1 else ""
        guesses = each.is_worse or each.is_near_chance
        found = f"{name} is {'no' if guesses else 'not shown to be'} better than a constant guess{of}: it has {each}."
        remedy = "train it for longer, or with another learning rate" if guesses else "measure it on more test rows"
        yield WarningMessage(
            code=f"{role}_{'at_chance' if guesses else 'not_shown_better'}", message=f"{found} {means}: {remedy}."
        )


def gain_findings(
    gain: float, interval: Interval | None, *, num_seeds: int, rows: int, in_points: bool, counted: str
) -> Iterator[WarningMessage]:
    """What is found of a student beside its control."""
    if interval is not None and interval[1] < 0:
        words = gain_words(gain, interval=interval, num_seeds=num_seeds, rows=rows, in_points=in_points, counted=counted)
        message = (
            f"The control, the same student without the teacher, is better than the student: the gain is {words}. "
            "Train without this teacher, or with another method, temperature or weight of the labels."
        )
        yield WarningMessage(code="control_beats_student", message=message)


def teacher_findings(
    difference: Interval | None, *, teacher: float, control: float, untuned: Sequence[str]
) -> Iterator[WarningMessage]:
    """What is found of the teacher beside the control; ``difference`` is the interval of its score less the control's.

    ``untuned`` are the sources of teachers that exist and were not trained by the job.
    """
    if difference is None or difference[1] >= 0:
        return
    if untuned:
        message = (
            f"The teacher {' + '.join(untuned)} was not fine-tuned on these data, and its test score, {teacher:.4f}, is below "
            f"that of the control, {control:.4f}, which learnt from labels alone: it has less to teach than they have. Give it "
            "a training, so that it is fine-tuned before it teaches, or take another."
        )
        yield WarningMessage(code="teacher_untuned", message=message)
    else:
        message = (
            f"The teacher's test score, {teacher:.4f}, is below that of the control, {control:.4f}, which learnt from labels "
            "alone: it has less to teach than they have. Train it for longer, or take another."
        )
        yield WarningMessage(code="teacher_worse_than_control", message=message)
