"""The report card: what came of a job, as JSON for programs and as one page for people.

Every figure that a job's users decide on is here with what it was measured on: the weights that count are those of the best
evaluation on the validation split, and their accuracy is that on the test split, which took no part in the choice.
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict

from service.spec import JobSpec
from service.spec.data import Task
from service.spec.job import TeacherSpec
from worker.data import Data
from worker.evaluation.evaluate import EvaluationResult
from worker.export.forms import Exported
from worker.models import built_from, num_parameters
from worker.targets import Targets
from worker.trained import TrainedNetwork
from worker.training.result import TrainingFigures


class _Card(BaseModel):
    """A part of the report. JSON has no NaN: a figure that is not finite is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Latency(_Card):
    """Median milliseconds of one forward pass in float32 on the job's device; networks measured in turns."""

    batch_1: float
    batch_64: float


class TrainingCard(_Card):
    """How a network was trained by this job."""

    steps: int
    epochs: int
    stopped_early: bool
    best_step: int
    """The step after which the weights that count were taken."""
    train_loss: float
    """Mean over the last window of steps."""
    seconds: float
    samples_per_second: float


class NetworkCard(_Card):
    """One network. *best* is the evaluation on validation that was best, *last* the one after the last step."""

    source: str
    architecture: dict[str, Any] | None
    parameters: int
    bytes: int
    """Size of its ``model.safetensors``."""
    test_score: float
    """Of the best weights, the figure to quote: accuracy; of a number its variance's share explained; the mean over targets."""
    test_accuracy: float | None
    """The same, where every target has classes."""
    test_loss: float
    test_accuracy_last: float | None
    """Of the last weights; None for a network that this job did not train."""
    validation_score: float
    validation_accuracy: float | None
    validation_loss: float
    validation_accuracy_last: float | None
    metrics: dict[str, dict[str, float]]
    """Of the best weights on the test split, by target. Of classes: accuracy, top_5_accuracy, macro_f1, calibration_error, loss;
    of a number: mse, mae, pearson, spearman, r2."""
    latency_ms: Latency
    training: TrainingCard | None
    """None for a network that this job did not train."""


class TeacherCard(NetworkCard):
    """One teacher of several."""

    weight: float
    """Of its outputs in the mean."""
    targets: list[str] | None
    """Those that it teaches, and that its figures are of; null for all."""


class Interval(_Card):
    """A figure over repeats."""

    mean: float
    half_width: float | None
    """Of the mean's 95 % confidence interval, by Student's t; null of a single repeat."""
    values: list[float]
    """By seed, in their order."""


class SeedsCard(_Card):
    """The student's test score over several seeds: of its initial weights and the order of its samples, on the same data."""

    seeds: list[int]
    student: Interval
    control: Interval | None
    gain: Interval | None
    """Of the differences by seed, student less control."""


class ExportCard(_Card):
    """Another form of the student, as a file."""

    name: str
    bytes: int
    largest_difference: float | None
    """From the student's outputs, on some samples; a share of the largest where that is above 1; null where one has a NaN."""
    test_score: float
    metrics: dict[str, dict[str, float]]
    """By target, on the test split, run by onnxruntime."""
    agreement: float
    """With the student itself, on the test split."""


class Compression(_Card):
    """Teacher over student."""

    parameters: float
    bytes: float
    latency_batch_1: float
    latency_batch_64: float


class DataCard(_Card):
    """What was trained and measured on."""

    source: str
    rows: dict[str, int]
    targets: dict[str, list[str] | None]
    """The classes of each target; null for a number."""
    classes: list[str]
    """The names of the student's outputs."""
    input_shape: list[int] | None
    """Of a sample as the student reads it: channels, height, width of an image; null for texts, whose length varies."""


class EnvironmentCard(_Card):
    """What the job ran on. On a CPU, the same spec, versions and threads give the same student, bit for bit."""

    device: str
    threads: int
    python: str
    torch: str
    platform: str


class Report(_Card):
    """The report card of a finished job."""

    format: int = 1
    job_id: str
    name: str
    task: Task
    created_at: datetime
    method: dict[str, Any]
    data: DataCard
    teacher: NetworkCard
    """Of several, what they say together; their parameters, bytes and latency are summed."""
    teachers: list[TeacherCard] = []
    """Each of several teachers, in the spec's order; empty where there is one."""
    chain: dict[str, NetworkCard] = {}
    """The networks between teacher and student, by role and in order: each was taught by the one before."""
    student: NetworkCard
    control: NetworkCard | None
    """The same student, trained without the teacher for as many steps; from the same initial weights where these are random."""
    score_with_teacher: float | None = None
    """The student's test score while it reads its teacher's own output, by ``distillation-network``; ``test_score`` is alone."""
    ensemble_score: float | None = None
    """What student and chain score together on the test split, where ``born-again`` asks for it."""
    agreement: float | None
    """Share of the test split on which student and teacher choose the same class; of several targets the mean. Of language models
    the share of tokens, null where the two have different tokenizers."""
    agreement_by_target: dict[str, dict[str, float]]
    """Of classes: agreement, and kl_divergence of the student from its teacher; of a number: as ``metrics``, from the teacher."""
    gain: float | None
    """The student's test score less the control's."""
    compression: Compression
    exports: list[ExportCard] = []
    seeds: SeedsCard | None = None
    environment: EnvironmentCard

    def headline(self) -> dict[str, Any]:
        """The few figures that a job carries as its ``result``."""

        def brief(card: NetworkCard) -> dict[str, Any]:
            figures = {"test_score": card.test_score, "test_accuracy": card.test_accuracy}
            return {**figures, "parameters": card.parameters, "bytes": card.bytes}

        return {
            "teacher": brief(self.teacher),
            "student": brief(self.student),
            "control": brief(self.control) if self.control else None,
            "agreement": self.agreement,
            "compression": self.compression.parameters,
            "gain": self.gain,
        }


@dataclass(frozen=True)
class Assessed:
    """What was measured of a finished network."""

    test: EvaluationResult
    metrics: dict[str, dict[str, float]]
    """By target, on the test split."""
    validation: EvaluationResult
    latency_ms: Latency
    num_bytes: int

    @classmethod
    def together(
        cls, each: Sequence[Self], *, test: EvaluationResult, validation: EvaluationResult, metrics: dict[str, dict[str, float]]
    ) -> Self:
        """Several networks that are asked one after the other."""
        latency_ms = Latency(
            batch_1=sum(one.latency_ms.batch_1 for one in each), batch_64=sum(one.latency_ms.batch_64 for one in each)
        )
        num_bytes = sum(one.num_bytes for one in each)
        return cls(test=test, validation=validation, metrics=metrics, latency_ms=latency_ms, num_bytes=num_bytes)


def make_report(
    *,
    spec: JobSpec,
    job_id: str,
    data: Data,
    networks: Mapping[str, TrainedNetwork],
    teachers: Mapping[str, TeacherSpec],
    assessed: Mapping[str, Assessed],
    agreement: float | None,
    agreement_by_target: dict[str, dict[str, float]],
    exports: Sequence[Exported] = (),
    seeds: SeedsCard | None = None,
    score_with_teacher: float | None = None,
    ensemble_score: float | None = None,
) -> Report:
    """The report on ``teachers``, ``student`` and, if there is one, ``control``; other roles are those of the chain.

    Of several teachers ``assessed["teacher"]`` is what they are together.
    """
    cards = {role: _network_card(network, assessed[role], data.targets) for role, network in networks.items()}
    student, control = cards["student"], cards.get("control")
    each_teacher = (
        []
        if len(teachers) == 1
        else [TeacherCard(**dict(cards[role]), weight=spec.weight, targets=spec.targets) for role, spec in teachers.items()]
    )
    teacher = _several_card(each_teacher, assessed["teacher"], data.targets) if each_teacher else cards["teacher"]
    device = networks["student"].device
    input_shape = built_from(networks["student"].network).input_shape
    return Report(
        job_id=job_id,
        name=spec.name,
        task=spec.task,
        created_at=datetime.now(UTC),
        method=spec.method.model_dump(mode="json"),
        data=DataCard(
            source=spec.dataset.source,
            rows={name: len(split) for name, split in data.splits.items()},
            targets={target.name: None if target.classes is None else list(target.classes) for target in data.targets},
            classes=data.targets.classes,
            input_shape=list(input_shape) if isinstance(input_shape, tuple) else None,
        ),
        teacher=teacher,
        teachers=each_teacher,
        chain={role: card for role, card in cards.items() if role not in (*teachers, "student", "control")},
        student=student,
        control=control,
        score_with_teacher=score_with_teacher,
        ensemble_score=ensemble_score,
        agreement=agreement,
        agreement_by_target=agreement_by_target,
        gain=None if control is None else student.test_score - control.test_score,
        compression=Compression(
            parameters=teacher.parameters / student.parameters,
            bytes=teacher.bytes / student.bytes,
            latency_batch_1=teacher.latency_ms.batch_1 / student.latency_ms.batch_1,
            latency_batch_64=teacher.latency_ms.batch_64 / student.latency_ms.batch_64,
        ),
        seeds=seeds,
        exports=[_export_card(exported) for exported in exports],
        environment=EnvironmentCard(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            threads=torch.get_num_threads(),
            python=platform.python_version(),
            torch=torch.__version__,
            platform=f"{platform.system()} {platform.machine()}",
        ),
    )


def _several_card(teachers: Sequence[NetworkCard], assessed: Assessed, targets: Targets) -> NetworkCard:
    """What several teachers are together."""
    are_classes = all(target.classes is not None for target in targets) and not targets.are_embeddings
    return NetworkCard(
        source=" + ".join(card.source for card in teachers),
        architecture=None,
        parameters=sum(card.parameters for card in teachers),
        bytes=assessed.num_bytes,
        test_score=assessed.test.score,
        test_accuracy=assessed.test.score if are_classes else None,
        test_loss=assessed.test.loss,
        test_accuracy_last=None,
        validation_score=assessed.validation.score,
        validation_accuracy=assessed.validation.score if are_classes else None,
        validation_loss=assessed.validation.loss,
        validation_accuracy_last=None,
        metrics=assessed.metrics,
        latency_ms=assessed.latency_ms,
        training=None,
    )


def _export_card(exported: Exported) -> ExportCard:
    differs = exported.largest_difference
    return ExportCard(
        name=exported.name,
        bytes=exported.num_bytes,
        largest_difference=differs if math.isfinite(differs) else None,
        test_score=exported.test.score,
        metrics=exported.metrics,
        agreement=exported.agreement,
    )


def _network_card(network: TrainedNetwork, assessed: Assessed, targets: Targets) -> NetworkCard:
    figures = network.figures
    are_classes = all(target.classes is not None for target in targets) and not targets.are_embeddings

    def accuracy(measured: EvaluationResult | None) -> float | None:
        return measured.score if measured is not None and are_classes else None

    return NetworkCard(
        source=network.source,
        architecture=network.architecture,
        parameters=num_parameters(network.network),
        bytes=assessed.num_bytes,
        test_score=assessed.test.score,
        test_accuracy=accuracy(assessed.test),
        test_loss=assessed.test.loss,
        test_accuracy_last=accuracy(network.last_test),
        validation_score=assessed.validation.score,
        validation_accuracy=accuracy(assessed.validation),
        validation_loss=assessed.validation.loss,
        validation_accuracy_last=accuracy(figures.last_validation if figures else None),
        metrics=assessed.metrics,
        latency_ms=assessed.latency_ms,
        training=None if figures is None else _training_card(figures),
    )


def _training_card(figures: TrainingFigures) -> TrainingCard:
    return TrainingCard(
        steps=figures.steps,
        epochs=figures.epochs,
        stopped_early=figures.stopped_early,
        best_step=figures.best_step,
        train_loss=figures.train_loss,
        seconds=figures.seconds,
        samples_per_second=figures.samples_seen / max(figures.seconds, 1e-9),
    )


_ROWS: tuple[tuple[str, Callable[[NetworkCard], str]], ...] = (
    ("test accuracy", lambda card: percent(card.test_accuracy)),
    ("… of the last weights", lambda card: percent(card.test_accuracy_last)),
    ("validation accuracy", lambda card: percent(card.validation_accuracy)),
    ("test score", lambda card: f"{card.test_score:.4f}" if card.test_accuracy is None else ""),
    ("test loss", lambda card: f"{card.test_loss:.4f}"),
    ("parameters", lambda card: f"{card.parameters:,}"),
    ("bytes", lambda card: f"{card.bytes:,}"),
    ("latency, batch of 1", lambda card: f"{card.latency_ms.batch_1:.2f} ms"),
    ("latency, batch of 64", lambda card: f"{card.latency_ms.batch_64:.2f} ms"),
    ("optimizer steps", lambda card: f"{card.training.steps:,}" if card.training else ""),
    ("training time", lambda card: f"{card.training.seconds:,.1f} s" if card.training else ""),
)


def _metric_rows(cards: Mapping[str, NetworkCard]) -> Iterator[tuple[str, list[str]]]:
    """What is measured by target beside the score; the target is named where there are several."""
    measured = {target: list(figures) for card in cards.values() for target, figures in card.metrics.items()}
    for target, names in measured.items():
        for name in names:
            if name in ("accuracy", "loss") and len(measured) == 1:
                continue
            values = [card.metrics.get(target, {}).get(name) for card in cards.values()]
            words = name.replace("_", " ")
            label = words if len(measured) == 1 else f"{target}: {words}"
            yield label, ["" if value is None else f"{value:.4f}" for value in values]


def _seed_facts(card: SeedsCard) -> dict[str, str]:
    named = {"Student": card.student, "Control": card.control, "Gain": card.gain}
    over = f" over {len(card.seeds)} seeds"
    return {name + over: interval_text(interval) for name, interval in named.items() if interval is not None}


def interval_text(interval: Interval) -> str:
    """``0.9312 ± 0.0041``."""
    return f"{interval.mean:.4f}" + ("" if interval.half_width is None else f" ± {interval.half_width:.4f}")


def percent(share: float | None) -> str:
    """With two decimals; nothing for None."""
    return "" if share is None else f"{share:.2%}"


def _described(term: Mapping[str, Any]) -> str:
    return ", ".join([term["name"], *(f"{key} {value}" for key, value in term.items() if key != "name" and value is not None)])


def report_html(report: Report) -> str:
    """The report as one page that needs no other file and runs no script."""
    teachers = {f"teacher {number}": card for number, card in enumerate(report.teachers, start=1)}
    cards = {"teacher": report.teacher, **teachers, **report.chain, "student": report.student}
    if report.control is not None:
        cards["control"] = report.control
    head = "".join(f"<th>{role}</th>" for role in cards)
    body = "".join(
        f"<tr><th>{escape(label)}</th>{''.join(f'<td>{escape(show(card))}</td>' for card in cards.values())}</tr>"
        for label, show in _ROWS
        if any(show(card) for card in cards.values())
    ) + "".join(
        f"<tr><th>{escape(label)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for label, values in _metric_rows(cards)
    )
    facts = {
        "Agreement of student and teacher": percent(report.agreement) or "not to be told: their tokens are different",
        **(
            {}
            if report.score_with_teacher is None
            else {"Student's score while it reads its teacher's output": f"{report.score_with_teacher:.4f}"}
        ),
        **({} if report.ensemble_score is None else {"Score of all generations together": f"{report.ensemble_score:.4f}"}),
        "Compression": f"{report.compression.parameters:.1f}× fewer parameters, {report.compression.bytes:.1f}× fewer bytes",
        "Gain over the control": "not measured" if report.gain is None else f"{report.gain * 100:+.2f} points",
        "Method": " + ".join(map(_described, report.method.get("terms", [report.method]))),
        "Data": f"{report.data.source}: " + ", ".join(f"{rows:,} {split}" for split, rows in report.data.rows.items()),
        **({} if report.seeds is None else _seed_facts(report.seeds)),
        **{
            export.name: f"{export.bytes:,} bytes, test score {export.test_score:.4f}, agreement {export.agreement:.2%}"
            for export in report.exports
        },
        "Device": report.environment.device,
        "Finished": f"{report.created_at:%Y-%m-%d %H:%M} UTC",
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    title = escape(report.name or report.job_id)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ padding: .35rem .75rem; border-bottom: 1px solid #8884; text-align: right; font-variant-numeric: tabular-nums; }}
th:first-child {{ text-align: left; font-weight: normal; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{escape(report.task)}, job {escape(report.job_id)}</p>
<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>
<dl>{listed}</dl>
<p>Accuracy is that of the weights that were best on the validation split, measured on the test split.</p>
</body>
</html>
"""
