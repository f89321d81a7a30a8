"""The report card as a table."""

import io

from rich.console import Console

from service.cli.report_card import report_card

REPORT = {
    "task": "image-classification",
    "teacher": {"test_accuracy": 0.98, "parameters": 152_010, "bytes": 611_000, "latency_ms": {"batch_1": 0.41, "batch_64": 3.2}},
    "control": {"test_accuracy": 0.93, "parameters": 2_610, "bytes": 12_000, "latency_ms": {"batch_1": 0.11, "batch_64": 0.52}},
    "student": {"test_accuracy": 0.955, "parameters": 2_610, "bytes": 12_000, "latency_ms": {"batch_1": 0.11, "batch_64": 0.51}},
    "agreement": 0.961,
    "gain": 0.025,
    "compression": {"parameters": 58.24},
}


def printed(report: dict[str, object]) -> str:
    output = io.StringIO()
    Console(file=output, width=160).print(report_card(report))
    return output.getvalue()


def test_each_network_has_a_row_and_the_student_says_how_it_agrees() -> None:
    lines = printed(REPORT).splitlines()
    (teacher,) = [line for line in lines if "│ teacher" in line]
    (student,) = [line for line in lines if "│ student" in line]
    assert [cell.strip() for cell in teacher.strip("│").split("│")] == [
        "teacher",
        "98.00%",
        "152,010",
        "597 KiB",
        "0.41 ms",
        "",
    ]
    assert "96.10%" in student
    told = " ".join(printed(REPORT).split())
    assert "1/58 of the teacher's parameters, agreeing with the teacher on 96.10% of the test split, 2.50 points above" in told
    assert "Told already" in printed({**REPORT, "verdict": "Told already"})


def test_the_gain_is_told_with_its_interval_and_the_warnings_follow() -> None:
    student = {**REPORT["student"], "test_rows": 359}  # type: ignore[dict-item]
    warned = [{"code": "control_beats_student", "message": "The control is better [than] the student."}]
    text = printed({**REPORT, "student": student, "gain_interval": [-0.01, 0.06], "gain_seeds": 1, "warnings": warned})
    told = "no difference shown from the same student trained alone (+2.50 points: one run, 95% interval -1.00 to +6.00, 359"
    assert told in " ".join(text.split())
    assert "warning: The control is better [than] the student." in text


def test_a_report_without_a_control_has_no_such_row() -> None:
    text = printed({**REPORT, "control": None, "gain": None})
    assert "control" not in text


def test_numbers_agree_by_their_correlation_not_in_percent() -> None:
    text = printed({**REPORT, "data": {"targets": {"year": None}}})
    assert "0.9610" in text
    assert "96.10%" not in text
