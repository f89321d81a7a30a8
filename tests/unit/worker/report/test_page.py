"""The report's page: every figure that there is, nothing that is not, and no markup of a user's."""

from typing import Any

from service.api.examples import REPORT
from service.spec.report import Report
from worker.report.page import report_html


def page(**changes: Any) -> str:
    return report_html(Report.model_validate(REPORT | changes))


def test_each_network_has_a_column() -> None:
    card = REPORT["student"]
    several = [REPORT["teacher"] | {"weight": 1.0, "targets": None}] * 2
    head = "".join(f"<th>{role}</th>" for role in ("teacher", "teacher 1", "teacher 2", "generation-1", "student", "control"))
    assert f"<thead><tr><th></th>{head}</tr></thead>" in page(teachers=several, chain={"generation-1": card}, control=card)


def test_what_users_wrote_is_escaped() -> None:
    text = page(name="<script>alert(1)</script>", data=REPORT["data"] | {"source": "file:/a&b"})
    assert "<script>" not in text
    assert "<h1>&lt;script&gt;alert(1)&lt;/script&gt;</h1>" in text
    assert "file:/a&amp;b" in text


def test_a_job_without_a_name_is_called_by_its_id() -> None:
    assert f"<title>{REPORT['job_id']}</title>" in page(name="")


def test_networks_of_two_tokenizers_are_not_compared() -> None:
    assert "<dd>96.10%</dd>" in page()
    assert "<dd>not comparable: different tokenizers</dd>" in page(agreement=None)


def test_numbers_agree_by_their_correlation_not_in_percent() -> None:
    text = page(data=REPORT["data"] | {"targets": {"year": None}})
    assert "<dd>0.9610 (correlation)</dd>" in text
    assert "96.10%" not in text


def test_figures_that_are_null_take_no_place() -> None:
    plain = page()
    assert "not measured" in plain
    assert not [word for word in ("over 2 seeds", "ensemble", "reads its teacher", "None") if word in plain]
    interval = {"mean": 0.9, "half_width": 0.01, "values": [0.89, 0.91]}
    seeds = {"seeds": [0, 1], "student": interval, "control": None, "gain": None}
    full = page(seeds=seeds, ensemble_score=0.5, score_with_teacher=0.25, gain=0.0111)
    assert "<dt>Student over 2 seeds</dt><dd>0.9000 ± 0.0100</dd>" in full
    assert "Control over" not in full
    assert "<dd>0.5000</dd>" in full
    assert "<dd>0.2500</dd>" in full
    assert "<dd>+1.11 points</dd>" in full


def test_warnings_and_the_rows_behind_the_figures_are_told() -> None:
    assert "Warnings" not in page()
    warned = [{"code": "student_at_chance", "message": "no better than <b>chance</b>"}]
    text = page(warnings=warned, gain=0.0111, gain_interval=[-0.01, 0.03])
    assert "<h2>Warnings</h2>\n<ul>\n<li>no better than &lt;b&gt;chance&lt;/b&gt;</li>\n</ul>" in text
    assert "<dd>+1.11 points (one run, 95% interval -1.00 to +3.00 on 359 samples: no difference shown)</dd>" in text
    assert "<tr><th>95% interval of that</th><td>95.96% to 99.02%</td><td>92.83% to 97.21%</td></tr>" in text
    assert "<tr><th>test samples with a label</th><td>359</td><td>359</td></tr>" in text


def test_of_several_targets_each_metric_names_its_own() -> None:
    both = {"label": {"accuracy": 0.9, "loss": 0.2}, "angle": {"r2": 0.5}}
    text = page(student=REPORT["student"] | {"metrics": both})
    assert "<tr><th>label: accuracy</th><td>0.9800</td><td>0.9000</td></tr>" in text
    assert "<tr><th>angle: r2</th><td></td><td>0.5000</td></tr>" in text
    assert "<tr><th>accuracy</th>" not in page()
