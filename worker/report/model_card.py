"""The student's README: a model card of the Hugging Face Hub."""

import json

from huggingface_hub import EvalResult, ModelCardData

from service.spec import JobSpec
from service.spec.data import EMBEDDING
from service.spec.methods import method_names
from service.spec.report import Report
from worker.evaluation.token_metrics import PREDICTED
from worker.models.reported import METRICS
from worker.report.template import one_line, render, told_gain
from worker.report.usage import Pixels, usage


def model_card(report: Report, spec: JobSpec) -> str:
    """YAML front matter as the Hub reads it, then Markdown."""
    figure, metric = _figure(report), _metric(report)
    is_transformers = spec.student.architecture.name == "transformers"
    data = ModelCardData(
        pipeline_tag="text-generation" if _is_causal(report) else report.task,
        library_name="transformers" if is_transformers else "stillhouse",
        tags=["distillation", *method_names(spec.method)],
        metrics=[metric],
        model_name=report.name or report.job_id,
        eval_results=[
            EvalResult(
                task_type=report.task,
                dataset_type=report.data.source,
                dataset_name=report.data.source,
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
        measured=_measured(report),
        methods=method_names(spec.method),
        networks={"teacher": report.teacher, **report.chain, "student": report.student, **control},
        predicted=PREDICTED,
        trained={"teacher": report.teacher, "student": report.student, **control},
        is_causal=_is_causal(report),
        is_random=spec.student.source == "random",
        agreement=_agreement(report),
        data=_data_words(report),
        usage=_usage(report, is_own=not is_transformers),
        spec=json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False),
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{body}"


def _figure(report: Report) -> str:
    """The figure that the student is quoted by: without labels in the test split its agreement with the teacher."""
    if report.student.test_score is None:
        return "agreement"
    return "score" if report.student.test_accuracy is None else "accuracy"


def _metric(report: Report) -> str:
    """The name of that figure for the Hub: one by which a teacher is measured later, or ``score`` for a mean of several."""
    figure = _figure(report)
    if _is_causal(report):
        return METRICS["tokens"]
    return METRICS["number"] if figure == "score" and list(report.data.targets.values()) == [None] else figure


def _is_causal(report: Report) -> bool:
    return report.task == "causal-lm"


def _measured(report: Report) -> str:
    """On how much the student's figure was measured, and its interval; empty where that is unknown."""
    card = report.student
    if card.test_rows is None:
        return ""
    rows = f": {card.test_rows:,} {'tokens' if _is_causal(report) else 'samples'}"
    if card.test_interval is None:
        return rows
    low, high = card.test_interval
    ends = f"{low:.4f} to {high:.4f}" if card.test_accuracy is None else f"{low:.2%} to {high:.2%}"
    return f"{rows}, 95% interval {ends}"


def _agreement(report: Report) -> str:
    if report.agreement is None:
        return "Its tokenizer is not its teacher's, so the two do not compare token by token."
    if report.task == EMBEDDING:
        return f"How alike it holds two texts correlates with how alike its teacher does: {report.agreement:.4f}."
    kinds = {classes is None for classes in report.data.targets.values()}
    if kinds == {True}:
        return f"Its numbers correlate with its teacher's: {report.agreement:.4f}."
    if len(kinds) == 2:
        return (
            f"It agrees with its teacher to {report.agreement:.4f}: the mean share of equal classes, and correlation of numbers."
        )
    return f"It agrees with its teacher on {report.agreement:.2%} of the {'test tokens' if _is_causal(report) else 'test split'}."


def _data_words(report: Report) -> str:
    if _is_causal(report):
        return "The loss and the perplexity are per token of `student/tokenizer.json`."
    if report.task == EMBEDDING:
        return "The score is the correlation of all pairs' cosine similarities with the teacher's."
    predicted = ", ".join(
        f"{one_line(name)} ({'a number' if classes is None else f'{len(classes)} classes'})"
        for name, classes in report.data.targets.items()
    )
    words = f"Predicted: {predicted}; the names are in `student/labels.json`."
    if None in report.data.targets.values():
        words += " Numbers are in the units of the data."
    if report.task == "image-classification" and report.data.input_shape is not None:
        shape = "×".join(map(str, report.data.input_shape))
        words += (
            f" Images are of {shape} (channels, height, width){_from_black_to_white(report)}; the pixels' mean and "
            "standard deviation are in `student/preprocessor_config.json`."
        )
    return words


def _from_black_to_white(report: Report) -> str:
    return f", from {pixels[0]:g} (black) to {pixels[1]:g} (white)" if (pixels := report.data.pixel_range) else ""


def _usage(report: Report, *, is_own: bool) -> str:
    shape, targets = report.data.input_shape, list(report.data.targets.values())
    return usage(
        report.task,
        is_own=is_own,
        reads_waveforms=shape is not None and len(shape) == 1,
        is_one_choice=len(targets) == 1 and targets[0] is not None,
        pixels=_STORED.get((report.data.pixel_range or [0.0])[-1], "other"),
    )


_STORED: dict[float, Pixels] = {1.0: "0 to 1", 255.0: "8 bits"}
"""How a file's pixels are made those of the data, by their white."""
