"""The report card of a finished job, from what was measured of its networks."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Self

import numpy as np
import torch

from service.spec import JobSpec
from service.spec.canvas import ImageFit
from service.spec.cards.evidence import TargetEvidence
from service.spec.cards.network import AdapterCard, Latency, NetworkCard, TeacherCard, TrainingCard
from service.spec.cards.samples import Disagreement, Generation
from service.spec.cards.speed import SpeedCard
from service.spec.how_to_load import library_lines, own_lines
from service.spec.job import TeacherSpec
from service.spec.report import Compression, DataCard, EnvironmentCard, ExportCard, Report, SeedsCard
from service.spec.warning_message import WarningMessage
from worker.data import Data
from worker.data.preprocessing import first
from worker.data.raw_inputs import are_pairs
from worker.data.text.texts_alone import holds_chats
from worker.evaluation.evaluate import EvaluationResult
from worker.evaluation.evidence import Interval, labelled_counts
from worker.export.forms import Exported
from worker.models import built_from, num_parameters
from worker.report.gates import check_gates
from worker.tasks import TASKS
from worker.tasks.task import Agreement, Measurement
from worker.trained import TrainedNetwork
from worker.training.result import TrainingFigures

_MOST_POINTS = 200


@dataclass(frozen=True)
class Assessed:
    """What was measured of a finished network."""

    test: Measurement
    """On the test split."""
    evidence: Mapping[str, TargetEvidence]
    """On the test split, by target."""
    validation: EvaluationResult | None
    """None if the validation split has no labels."""
    latency_ms: Latency
    num_bytes: int
    speed: SpeedCard | None = None
    """None for several networks together."""

    @classmethod
    def together(
        cls,
        each: Sequence[Self],
        *,
        test: Measurement,
        evidence: Mapping[str, TargetEvidence],
        validation: EvaluationResult | None,
    ) -> Self:
        """Several networks that run one after the other."""
        latency_ms = Latency(
            batch_1=sum(one.latency_ms.batch_1 for one in each), batch_64=sum(one.latency_ms.batch_64 for one in each)
        )
        return cls(test, evidence, validation, latency_ms, num_bytes=sum(one.num_bytes for one in each))


@dataclass(frozen=True)
class Gain:
    """What the student scores over another network, on the test split."""

    value: float
    """Over several seeds the mean."""
    interval: Interval | None
    num_seeds: int


def make_report(
    *,
    spec: JobSpec,
    job_id: str,
    data: Data,
    networks: Mapping[str, TrainedNetwork],
    teachers: Mapping[str, TeacherSpec],
    assessed: Mapping[str, Assessed],
    agreement: Agreement,
    validation_agreement: float | None = None,
    exports: Sequence[Exported] = (),
    adapters: Mapping[str, AdapterCard] | None = None,
    gain: Gain | None = None,
    over_teacher: Gain | None = None,
    seeds: SeedsCard | None = None,
    score_with_teacher: float | None = None,
    ensemble_score: float | None = None,
    warnings: Sequence[WarningMessage] = (),
    disagreements: Sequence[Disagreement] = (),
    generations: Sequence[Generation] = (),
) -> Report:
    """The report on ``teachers``, ``student`` and, if there is one, ``control``; other roles are those of the chain.

    Of several teachers ``assessed["teacher"]`` is what they are together.
    """
    are_shares = TASKS[data.task].score_is_share(data.targets)
    cards = {
        role: _network_card(
            network,
            assessed[role],
            are_shares=are_shares,
            adapter=(adapters or {}).get(role),
            num_gpus=spec.resources.gpus,
        )
        for role, network in networks.items()
    }
    student, control = cards["student"], cards.get("control")
    each_teacher = (
        []
        if len(teachers) == 1
        else [TeacherCard(**dict(cards[role]), weight=spec.weight, targets=spec.targets) for role, spec in teachers.items()]
    )
    teacher = _several_card(each_teacher, assessed["teacher"], are_shares=are_shares) if each_teacher else cards["teacher"]
    is_library = (networks["student"].architecture or {}).get("name") == "transformers"
    input_shape = built_from(networks["student"].network).input_shape
    report = Report(
        job_id=job_id,
        name=spec.name,
        task=spec.task,
        created_at=datetime.now(UTC),
        method=spec.method.model_dump(mode="json"),
        data=DataCard(
            source=spec.dataset.source,
            transfer=spec.dataset.transfer,
            rows=_rows(data),
            labelled_rows={name: labelled_counts(split.labels, data.targets) for name, split in data.splits.items()}
            if len(data.targets)
            else {},
            targets={target.name: None if target.classes is None else list(target.classes) for target in data.targets},
            label_kinds={target.name: target.label_kind for target in data.targets if target.label_kind != "class"},
            classes=data.targets.classes,
            read=str(data.read),
            input_shape=list(input_shape) if isinstance(input_shape, tuple) else None,
            chats=holds_chats(data.splits["train"].inputs),
            pairs=are_pairs(first(data.splits["train"].inputs, 1)),
            pixel_range=_pixel_range(data),
            image_fit=_image_fit(data),
        ),
        teacher=teacher,
        teachers=each_teacher,
        chain={role: card for role, card in cards.items() if role not in (*teachers, "student", "control")},
        student=student,
        control=control,
        score_with_teacher=score_with_teacher,
        ensemble_score=ensemble_score,
        agreement=agreement.value,
        agreement_by_target=agreement.metrics,
        chosen_by=figures.chosen_by if (figures := networks["student"].figures) else "score",
        validation_agreement=validation_agreement,
        bias=networks["student"].bias,
        gain=None if gain is None else gain.value,
        gain_interval=None if gain is None else gain.interval,
        gain_seeds=1 if gain is None else gain.num_seeds,
        over_teacher=None if over_teacher is None else over_teacher.value,
        over_teacher_interval=None if over_teacher is None else over_teacher.interval,
        compression=Compression(
            parameters=teacher.parameters / student.parameters,
            bytes=teacher.bytes / student.bytes,
            latency_batch_1=teacher.latency_ms.batch_1 / student.latency_ms.batch_1,
            latency_batch_64=teacher.latency_ms.batch_64 / student.latency_ms.batch_64,
        ),
        seeds=seeds,
        warnings=list(warnings),
        exports=[_export_card(exported) for exported in exports],
        environment=_environment(networks["student"].device, num_gpus=spec.resources.gpus),
        disagreements=list(disagreements),
        generations=list(generations),
        load=library_lines(spec.task, "student") if is_library else own_lines("student"),
    )
    gates = check_gates(spec.require, report)
    return report.model_copy(update={"require": gates, "accepted": all(gate.held for gate in gates) if gates else None})


def _image_fit(data: Data) -> ImageFit | None:
    canvas = data.canvas
    if canvas is None:
        return None
    return ImageFit(size=[canvas.height, canvas.width], fit=canvas.fit, interpolation=canvas.interpolation)


def _pixel_range(data: Data) -> list[float] | None:
    if TASKS[data.task].info.input_kind != "image":
        return None
    pixels = data.pixel_range
    return None if pixels.is_doubtful else [pixels.low, pixels.high]


def _rows(data: Data) -> dict[str, int]:
    """Rows by split; the transfer rows for themselves."""
    rows: dict[str, int] = {name: len(split.own) for name, split in data.splits.items()}
    transfer = data.splits["train"].transfer
    return rows if transfer is None else rows | {"transfer": transfer.count}


def _several_card(teachers: Sequence[NetworkCard], assessed: Assessed, *, are_shares: bool) -> NetworkCard:
    """What several teachers are together."""
    test, validation = assessed.test.result, assessed.validation
    return NetworkCard(
        source=" + ".join(card.source for card in teachers),
        architecture=None,
        parameters=sum(card.parameters for card in teachers),
        bytes=assessed.num_bytes,
        test_score=_score(test),
        test_rows=None if test is None else assessed.test.rows,
        test_interval=assessed.test.interval,
        test_accuracy=_score(test) if are_shares else None,
        test_loss=_loss(test),
        test_accuracy_last=None,
        validation_score=_score(validation),
        validation_accuracy=_score(validation) if are_shares else None,
        validation_loss=_loss(validation),
        validation_accuracy_last=None,
        metrics=assessed.test.metrics,
        evidence=dict(assessed.evidence),
        latency_ms=assessed.latency_ms,
        training=None,
    )


def _export_card(exported: Exported) -> ExportCard:
    differs = exported.largest_difference
    return ExportCard(
        name=exported.name,
        bytes=exported.num_bytes,
        largest_difference=differs if math.isfinite(differs) else None,
        test_score=_score(exported.test.result),
        metrics=exported.test.metrics,
        agreement=exported.agreement,
    )


def _network_card(
    network: TrainedNetwork, assessed: Assessed, *, are_shares: bool, adapter: AdapterCard | None, num_gpus: int
) -> NetworkCard:
    figures, test = network.figures, assessed.test.result

    def accuracy(measured: EvaluationResult | None) -> float | None:
        return _score(measured) if are_shares else None

    return NetworkCard(
        source=network.source,
        architecture=network.architecture,
        parameters=num_parameters(network.network),
        bytes=assessed.num_bytes,
        test_score=_score(test),
        test_rows=None if test is None else assessed.test.rows,
        test_interval=assessed.test.interval,
        test_accuracy=accuracy(test),
        test_loss=_loss(test),
        test_accuracy_last=accuracy(network.last_test),
        validation_score=_score(assessed.validation),
        validation_accuracy=accuracy(assessed.validation),
        validation_loss=_loss(assessed.validation),
        validation_accuracy_last=accuracy(figures.last_validation if figures and figures.chosen_by == "score" else None),
        metrics=assessed.test.metrics,
        evidence=dict(assessed.evidence),
        latency_ms=assessed.latency_ms,
        speed=assessed.speed,
        training=None if figures is None else _training_card(figures, num_gpus=num_gpus),
        dtype=network.dtype,
        start=network.start,
        adapter=adapter,
    )


def _score(measured: EvaluationResult | None) -> float | None:
    return None if measured is None else measured.score


def _loss(measured: EvaluationResult | None) -> float | None:
    return None if measured is None else measured.loss


def _training_card(figures: TrainingFigures, *, num_gpus: int) -> TrainingCard:
    return TrainingCard(
        steps=figures.steps,
        epochs=figures.epochs,
        stopped_early=figures.stopped_early,
        best_step=figures.best_step,
        train_loss=figures.train_loss,
        seconds=figures.seconds,
        samples_per_second=figures.samples_seen / max(figures.seconds, 1e-9),
        gpu_seconds=figures.seconds * num_gpus,
        curves={name: _thinned(points) for name, points in figures.curves.items()},
    )


def _thinned(points: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Some of a curve's points, evenly spaced, with the first and the last."""
    chosen = sorted({round(place) for place in np.linspace(0, len(points) - 1, num=min(len(points), _MOST_POINTS))})
    return [(int(points[at][0]), points[at][1]) for at in chosen]


def _environment(device: torch.device, *, num_gpus: int) -> EnvironmentCard:
    on_gpu = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if on_gpu else None
    memory = properties.total_memory if properties is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return EnvironmentCard(
        device=properties.name if properties is not None else "cpu",
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        transformers=version("transformers"),
        cuda=torch.version.cuda if on_gpu else None,
        gpus=num_gpus,
        memory_gib=round(memory / 2**30, 1),
    )
