"""The student's README in the Hugging Face Hub's form, and the other documents beside it."""

import json
from pathlib import Path
from typing import Any

import yaml

from service.spec import JobSpec
from service.spec.data import EMBEDDING
from service.spec.methods import method_names
from worker.evaluation.token_metrics import PREDICTED
from worker.export.folder import write_json, write_spec
from worker.report.build import Report, interval_text, percent, report_html
from worker.report.usage import usage


def write_documents(folder: Path, *, report: Report, spec: JobSpec) -> None:
    """Writes ``report.json``, ``report.html``, ``README.md`` and ``spec.json``."""
    write_json(folder / "report.json", report.model_dump(mode="json"))
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")
    (folder / "README.md").write_text(model_card(report, spec), encoding="utf-8")
    write_spec(folder, spec)


def model_card(report: Report, spec: JobSpec) -> str:
    """The student's README in the Hugging Face Hub's form: YAML front matter, then Markdown."""
    student, teacher = report.student, report.teacher
    figure = "score" if student.test_accuracy is None else "accuracy"
    is_transformers = spec.student.architecture.name == "transformers"
    front_matter: dict[str, Any] = {
        "pipeline_tag": "text-generation" if _is_causal(report) else report.task,
        "library_name": "transformers" if is_transformers else "stillhouse",
        "tags": ["distillation", *method_names(spec.method)],
        "metrics": [figure],
        "model-index": [
            {
                "name": report.name or report.job_id,
                "results": [
                    {
                        "task": {"type": report.task},
                        "dataset": {"type": report.data.source, "name": report.data.source, "split": "test"},
                        "metrics": [{"type": figure, "value": student.test_score}],
                    }
                ],
            }
        ],
    }
    rows = [("teacher", teacher), *report.chain.items(), ("student", student)] + (
        [("control", report.control)] if report.control else []
    )
    table = "\n".join(
        f"| {role} | {percent(card.test_accuracy) or f'{card.test_score:.4f}'} | {card.parameters:,} | {card.bytes:,} "
        f"| {card.latency_ms.batch_1:.2f} | {card.latency_ms.batch_64:.2f} |"
        for role, card in rows
    )
    gain = (
        ""
        if report.gain is None
        else (
            f"\nThe control is the same student, trained from the {_beginning(spec)} for as many steps without the teacher; "
            f"the teacher's gain over it is {report.gain * 100:+.2f} points.\n"
        )
    )
    splits = ", ".join(f"{rows:,} {split}" for split, rows in report.data.rows.items())
    method = " + ".join(f"`{name}`" for name in method_names(spec.method))
    return f"""---
{yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)}---

# {_one_line(report.name) or report.job_id}

A student of {student.parameters:,} parameters, distilled by {method} from a teacher of {teacher.parameters:,}
({report.compression.parameters:.1f} times as many). {_agreement(report)}

| network | test {figure} | parameters | bytes | ms, batch of 1 | ms, batch of 64 |
| --- | --- | --- | --- | --- | --- |
{table}
{gain}
{_by_target(report)}{_over_seeds(report)}{_other_forms(report)}Weights were chosen on the validation split; the {figure} is on
the test split, which took no part in the choice.

## Use

```python
{_usage(report, is_own=not is_transformers)}
```

## Data

`{_one_line(report.data.source)}`: {splits} samples. {_data_words(report)}

## Spec

```json
{json.dumps(spec.model_dump(mode="json"), indent=2, ensure_ascii=False)}
```
"""


def _agreement(report: Report) -> str:
    if report.agreement is None:
        return "Its tokenizer is not its teacher's, so the two do not compare token by token."
    if report.task == EMBEDDING:
        return f"How alike it holds two texts correlates with how alike its teacher does: {report.agreement:.4f}."
    return f"It agrees with its teacher on {report.agreement:.2%} of the {'test tokens' if _is_causal(report) else 'test split'}."


def _is_causal(report: Report) -> bool:
    return report.task == "causal-lm"


def _beginning(spec: JobSpec) -> str:
    return "same initial weights" if spec.student.source == "random" else "weights of a fresh network"


def _by_target(report: Report) -> str:
    """A row for each target, where there are several."""
    measured = report.student.metrics
    if len(measured) < 2:
        return _by_token(report) if _is_causal(report) else ""
    rows = [
        f"| {_one_line(target)} | {', '.join(f'{name} {value:.4f}' for name, value in figures.items())} |".replace("_", " ")
        for target, figures in measured.items()
    ]
    return "\n".join(["| target | the student on the test split |", "| --- | --- |", *rows]) + "\n\n"


def _by_token(report: Report) -> str:
    """The usual figures of language models, a row for each network."""
    cards = {"teacher": report.teacher, "student": report.student} | ({"control": report.control} if report.control else {})
    rows = [f"| {role} | {card.metrics[PREDICTED]['perplexity']:.2f} | {card.test_loss:.4f} |" for role, card in cards.items()]
    return "\n".join(["| network | test perplexity | test loss |", "| --- | --- | --- |", *rows]) + "\n\n"


def _over_seeds(report: Report) -> str:
    card = report.seeds
    if card is None:
        return ""
    gain = "" if card.gain is None else f", the gain over the control is {interval_text(card.gain)}"
    return (
        f"Over the seeds {', '.join(map(str, card.seeds))} the test score is {interval_text(card.student)}{gain} "
        "(mean and 95% interval, of initial weights and order of samples).\n\n"
    )


def _other_forms(report: Report) -> str:
    """A line for each other form of the student."""
    lines = [
        f"- `{export.name}`: {export.bytes:,} bytes, test score {export.test_score:.4f}, "
        f"agrees with the student on {export.agreement:.2%}"
        for export in report.exports
    ]
    return "\n".join(["In other forms, run by onnxruntime:", "", *lines]) + "\n\n" if lines else ""


def _data_words(report: Report) -> str:
    if _is_causal(report):
        return "The loss and the perplexity are per token of `student/tokenizer.json`."
    if report.task == EMBEDDING:
        return "The score is the correlation of all pairs' cosine similarities with the teacher's."
    predicted = ", ".join(
        f"{_one_line(name)} ({'a number' if classes is None else f'{len(classes)} classes'})"
        for name, classes in report.data.targets.items()
    )
    words = f"Predicted: {predicted}; the names are in `student/labels.json`."
    if report.task == "image-classification" and report.data.input_shape is not None:
        shape = "×".join(map(str, report.data.input_shape))
        words += (
            f" Images are of {shape} (channels, height, width); the pixels' mean and standard deviation are in "
            "`student/preprocessor_config.json`."
        )
    return words


def _usage(report: Report, *, is_own: bool) -> str:
    shape, targets = report.data.input_shape, list(report.data.targets.values())
    return usage(
        report.task,
        is_own=is_own,
        reads_waveforms=shape is not None and len(shape) == 1,
        is_one_choice=len(targets) == 1 and targets[0] is not None,
    )


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
