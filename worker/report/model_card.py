"""The student's README: a model card of the Hugging Face Hub."""

import json
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from service.spec import JobSpec
from service.spec.cards.network import NetworkCard, StartCard
from service.spec.methods import method_names
from service.spec.report import Report
from service.spec.source import split_hub_data, split_source
from worker.report.template import render, told_gain
from worker.tasks import TASKS


def model_card(report: Report, spec: JobSpec) -> str:
    """YAML front matter as the Hub reads it, then Markdown."""
    is_transformers = (report.student.architecture or {}).get("name") == "transformers"
    info, words, figure = TASKS[report.task].info, TASKS[report.task].words(report, is_own=not is_transformers), _figure(report)
    metric = "agreement" if figure == "agreement" else words.score
    origin = origin_of_student(report, spec)
    data = ModelCardData(
        datasets=_repositories(spec) or None,
        license=None if origin is None else origin.licence,
        base_model=None if origin is None else _on_hub(origin),
        pipeline_tag=info.pipeline_tag or report.task,
        library_name="transformers" if is_transformers else "stillhouse",
        tags=["distillation", *method_names(spec.method)],
        metrics=[metric],
        model_name=report.name or report.job_id,
        eval_results=[
            EvalResult(
                task_type=report.task,
                **_evaluated_on(spec.dataset.source),
                dataset_split="test",
                metric_type=metric,
                metric_value=report.agreement if figure == "agreement" else report.student.test_score,
            )
        ],
    )
    control = {} if report.control is None else {"control": report.control}
    body = render(
        "README.md.jinja",
        report=report,
        figure=figure,
        gain=told_gain(report),
        measured=_measured(report, info.counted),
        methods=method_names(spec.method),
        networks={"teacher": report.teacher, **report.chain, "student": report.student, **control},
        starts=_starts(report),
        trained={"teacher": report.teacher, "student": report.student, **control},
        shown=info.shown_metric,
        is_same_start=spec.student.source != "teacher-layers",
        words=words,
        spec=json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False),
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{body}"


def origin_of_student(report: Report, spec: JobSpec) -> StartCard | None:
    """The network that exists whose weights the student began with, of its own or by its teacher's layers."""
    return report.teacher.start if spec.student.source == "teacher-layers" else report.student.start


def lineage_card(origin: StartCard) -> str:
    """The card of a network that has the weights of another, and nothing else to tell: its base and its licence."""
    data = ModelCardData(license=origin.licence, base_model=_on_hub(origin))
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n"


def _repositories(spec: JobSpec) -> list[str]:
    """The datasets of the Hub that the student learnt from."""
    sources = (spec.dataset.source, spec.dataset.transfer or "")
    return [split_hub_data(source).repository for source in sources if split_source(source).kind == "hub"]


def _evaluated_on(source: str) -> dict[str, Any]:
    if split_source(source).kind != "hub":
        return {"dataset_type": source, "dataset_name": source}
    repository, revision, config = split_hub_data(source)
    named = {"dataset_type": repository, "dataset_name": repository}
    return named | {"dataset_config": config, "dataset_revision": revision}


def _on_hub(origin: StartCard) -> str | None:
    kind, name = split_source(origin.source)
    return name.partition("@")[0] if kind == "hub" else None


def _starts(report: Report) -> dict[str, StartCard]:
    """The networks that exist from which the job's come, by role; the control's is the student's."""
    teachers: dict[str, NetworkCard] = {f"teacher {number}": card for number, card in enumerate(report.teachers, start=1)}
    cards = {**(teachers or {"teacher": report.teacher}), "student": report.student}
    return {role: card.start for role, card in cards.items() if card.start is not None}


def _figure(report: Report) -> str:
    """The figure that the student is quoted by: without labels in the test split its agreement with the teacher."""
    if report.student.test_score is None:
        return "agreement"
    return "score" if report.student.test_accuracy is None else "accuracy"


def _measured(report: Report, counted: str) -> str:
    """On how much the student's figure was measured, and its interval; empty where that is unknown."""
    card = report.student
    if card.test_rows is None:
        return ""
    rows = f": {card.test_rows:,} {counted}"
    if card.test_interval is None:
        return rows
    low, high = card.test_interval
    ends = f"{low:.4f} to {high:.4f}" if card.test_accuracy is None else f"{low:.2%} to {high:.2%}"
    return f"{rows}, 95% interval {ends}"
