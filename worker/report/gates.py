"""The gates of a spec against the figures of its report."""

from service.spec.report import GateCard, Report
from service.spec.require import RequiredFigure, RequireSpec, holds


def check_gates(require: RequireSpec, report: Report) -> list[GateCard]:
    """Compares each figure that is required with what was measured, in the spec's order."""
    cards = []
    for figure, asked in require.gates.items():
        measured, missing = _measured(figure, report)
        held = measured is not None and holds(asked, measured)
        found = missing if measured is None else f"is {measured:.6g}{_measured_as(figure, report)}"
        cards.append(
            GateCard(
                figure=figure, asked=asked, measured=measured, held=held, message=f"{figure} {found}, and {asked} is required"
            )
        )
    return cards


def _measured(figure: RequiredFigure, report: Report) -> tuple[float | None, str]:
    """A figure of the student, or None and why there is none."""
    student = report.student
    score = student.test_score if report.seeds is None else report.seeds.student.mean
    unlabelled = "was not measured, as the test split has no labels"
    match figure:
        case "score":
            return score, unlabelled
        case "relative_to_teacher":
            theirs = report.teacher.test_score
            if report.over_teacher is None or score is None or theirs is None:
                return None, "was not measured, as no labels compare student and teacher"
            if theirs <= 0:
                return None, f"has no meaning, as the teacher's score is {theirs:.6g}"
            return score / theirs, ""
        case "gain":
            if report.gain is None:
                return None, unlabelled if student.test_score is None else "was not measured"
            if report.gain_interval is None:
                return None, "has no interval, without which it is not shown"
            return report.gain_interval[0], ""
        case "agreement":
            return report.agreement, "was not measured, as student and teacher have two tokenizers"
        case "latency_ms":
            return student.latency_ms.batch_1, ""
        case "parameters":
            return student.parameters, ""
        case "bytes":
            return student.bytes, ""


def _measured_as(figure: RequiredFigure, report: Report) -> str:
    """What is to be known of a figure to compare it."""
    match figure:
        case "gain":
            return " at the lower end of its interval"
        case "latency_ms":
            return f" on {report.environment.device}"
        case _:
            return ""
