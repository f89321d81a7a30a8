"""A training in less memory: the same weights in the end, whatever was saved, and whenever memory ran out."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from service.spec.training import Sgd, TrainingSpec
from tests.unit.worker.models.test_build import VISION_TYPES, tiny
from tests.unit.worker.training.test_micro_batch import TARGETS, Convolutions, Teacher, method
from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.distributed.rng import seed_everything
from worker.errors import UnfitTraining
from worker.host_memory import free_host_bytes
from worker.methods.layer_mapping import map_layers
from worker.models import build_network
from worker.models.transformers_network import TransformersNetwork
from worker.tasks import TASKS
from worker.training import memory
from worker.training.checkpoint import read_checkpoint, write_checkpoint
from worker.training.criterion import BatchCriterion, label_criterion
from worker.training.loop import Training, train
from worker.training.memory import saved_bytes

CPU = torch.device("cpu")
STEPS = {"max_steps": 4, "batch_size": 8, "optimizer": {"name": "sgd"}, "schedule": {"name": "constant"}}


class Hungry(nn.Module):
    """Needs more memory than any machine has for more than ``most`` samples at once, once ``calls`` passes are done."""

    def __init__(self, most: int, *, calls: int, backward: bool) -> None:
        super().__init__()
        self.most, self.calls, self.backward = most, calls, backward

    def forward(self, images: Tensor) -> Tensor:
        self.calls -= self.training
        if not self.training or self.calls >= 0 or len(images) <= self.most:
            return images
        if not self.backward:
            torch.empty(2**60, dtype=torch.uint8)
        images = images * 1
        images.register_hook(lambda gradient: torch.empty(2**60, dtype=torch.uint8))  # type: ignore[no-untyped-call]
        return images


def images(count: int = 20) -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(count, 1, 6, 6, generator=generator), torch.arange(count) % 4, None, CPU)


def training(
    spec: dict[str, Any],
    *,
    most: int = 100,
    calls: int = 0,
    backward: bool = False,
    dropout: float = 0.3,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Training:
    """By a method that draws random numbers and remembers."""
    parsed = TrainingSpec.model_validate(STEPS | spec)
    group.seed(parsed.seed)
    student, teacher = Convolutions(3, 4, dropout=dropout), Convolutions(4, 4)
    made = taught(student, teacher, parsed, name="crd", group=group)
    student.first.append(Hungry(most, calls=calls, backward=backward))
    return made


def taught(student: nn.Module, teacher: nn.Module, spec: TrainingSpec, *, name: str, group: ProcessGroup) -> Training:
    """The training of a student by a method of that name."""
    samples, few = images(), torch.randn(2, 1, 6, 6)
    mapping = map_layers(method(name), student=student, teacher=teacher, student_inputs=few, teacher_inputs=few)
    return Training(
        student,
        phase="student",
        samples=samples,
        validation=TASKS["image-classification"].validation(images(8), TARGETS),
        spec=spec,
        criterion=BatchCriterion(
            student,
            samples,
            mapping.objective(targets=TARGETS, labels=samples.labels),
            layers=mapping.student_layers,
            teacher_outputs=Teacher(teacher, tuple(mapping.teacher_shapes)),
        ),
        group=group,
    )


class Warnings:
    """Keeps what a training tells, and its state after one of its steps."""

    def __init__(self, *, keep: tuple[int, Path] | None = None) -> None:
        self.told: list[str] = []
        self._keep = keep

    def on_step_end(self, training: Training) -> None:
        warnings = training.savings.take_warnings()
        assert {warning.code for warning in warnings} <= {"micro_batch_halved", "gradient_checkpointing_on"}
        self.told += [warning.message for warning in warnings]
        if self._keep is not None and training.step == self._keep[0]:
            write_checkpoint(self._keep[1], training.state())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("micro_batch", [8, "auto"])
def test_where_memory_runs_out_a_training_goes_on_as_if_it_had_asked_for_less(micro_batch: Any, backward: bool) -> None:
    callback = Warnings()
    halved = train(training({"micro_batch": micro_batch}, most=2, backward=backward), callback)
    assert len(callback.told) == 2
    assert "4 samples at a time, instead of 8" in callback.told[0]
    assert "2 samples at a time, instead of 4" in callback.told[1]
    assert "DefaultCPUAllocator" in callback.told[0]
    assert same(halved.best, train(training({"micro_batch": 2}), Warnings()).best)
    assert not same(halved.best, train(training({"micro_batch": 4}), Warnings()).best)


def test_what_was_halved_stays_so_after_an_interruption(tmp_path: Path) -> None:
    # In the second step: the first had two passes of each of two micro batches.
    whole = Warnings(keep=(3, tmp_path / "state"))
    expected = train(training({"micro_batch": 4}, most=2, calls=4), whole)
    assert [message.split(" of the ")[0] for message in whole.told] == ["Memory ran out in step 2"]

    again, resumed = training({"micro_batch": 4}), Warnings()
    again.restore(read_checkpoint(tmp_path / "state"))
    assert again.savings.micro_batch == 2
    assert same(train(again, resumed).best, expected.best)
    assert not resumed.told


def test_a_single_sample_that_does_not_fit_ends_the_training() -> None:
    callback = Warnings()
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        train(training({"micro_batch": "auto"}, most=0), callback)


def test_a_training_that_asked_for_no_micro_batches_has_none() -> None:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        train(training({}, most=2), Warnings())


def test_other_errors_are_no_lack_of_memory() -> None:
    broken = training({"micro_batch": 8})
    broken.network.second = nn.Linear(7, 7)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(broken, Warnings())


# ------------------------------------------------------------ inner results computed twice


def vit(*, dropout: float = 0.3) -> TransformersNetwork:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = ViTConfig(**sizes, **dropouts, image_size=6, patch_size=2, num_channels=1, num_labels=4)
    return TransformersNetwork(ViTForImageClassification(config), input_name="pixel_values")


def of_layers(spec: dict[str, Any], *, name: str = "fitnet") -> Training:
    """Of a library's network, taught at its layers."""
    parsed = TrainingSpec.model_validate(STEPS | spec)
    seed_everything(parsed.seed)
    return taught(vit(), vit(dropout=0.0).eval(), parsed, name=name, group=SINGLE_PROCESS)


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("name", ["soft-targets", "fitnet", "distilbert"])
def test_layers_that_compute_twice_learn_the_same(name: str, micro_batch: int | None) -> None:
    twice, once = (
        train(of_layers({"gradient_checkpointing": each, "micro_batch": micro_batch}, name=name), Warnings())
        for each in (True, False)
    )
    assert same(twice.best, once.best)


def test_where_memory_runs_out_layers_compute_twice_if_nothing_else_is_allowed() -> None:
    each, callback = of_layers({}, name="soft-targets"), Warnings()

    def need(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """More than there is for a whole batch, as long as the layers keep all."""
        if network.training and not each.savings.recomputes:
            torch.empty(2**60, dtype=torch.uint8)

    each.network.register_forward_pre_hook(need)
    result = train(each, callback)
    assert len(callback.told) == 1
    assert "computed twice" in callback.told[0]
    assert same(result.best, train(of_layers({"gradient_checkpointing": False}, name="soft-targets"), Warnings()).best)


def test_layers_that_compute_twice_keep_less() -> None:
    sizes = []
    for is_on in (True, False):
        each = of_layers({"gradient_checkpointing": is_on}, name="soft-targets")
        each.train_mode()
        before = torch.get_rng_state()
        sizes.append(saved_bytes(each))
        assert torch.equal(torch.get_rng_state(), before)
    inputs = 3 * 10 * 16 * 4  # of three layers: ten tokens of width 16
    assert inputs < sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ({"micro_batch": "auto"}, {"micro_batch": 2, "recomputes": False}),
        ({"micro_batch": 5}, {"micro_batch": 5, "recomputes": True}),
        ({}, {"micro_batch": None, "recomputes": True}),
        ({"gradient_checkpointing": False}, {"micro_batch": None, "recomputes": False}),
    ],
)
def test_what_a_step_keeps_is_measured_against_what_is_free(
    spec: dict[str, Any], chosen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = of_layers(spec, name="soft-targets")
    each.train_mode()
    weights = sum(weight.nbytes for weight in each.module.parameters())
    # For the gradients and the optimizer, and for what two samples and a half keep, of 0.8 of what is free.
    free = (3 * weights + 2.5 * saved_bytes(each)) / 0.8
    for name, value in {"memory.max": 1_000_000_000 + int(free), "memory.current": 1_000_500_000}.items():
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(memory, "free_host_bytes", partial(free_host_bytes, tmp_path, tmp_path))
    drawn = torch.get_rng_state()
    memory.choose_savings(each)
    assert each.savings.state() == chosen
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not each.savings.take_warnings()


def test_batch_norm_is_neither_divided_nor_counted_twice() -> None:
    config = ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4], depths=[1], num_labels=4)
    network = TransformersNetwork(ResNetForImageClassification(config), input_name="pixel_values")
    samples = images()
    parts: dict[str, Any] = {
        "phase": "student",
        "samples": samples,
        "validation": TASKS["image-classification"].validation(samples, TARGETS),
        "criterion": label_criterion(network, samples, TARGETS),
    }
    for field, value in (("micro_batch", 2), ("gradient_checkpointing", True)):
        with pytest.raises(UnfitTraining, match="its batch norm") as refused:
            Training(network, spec=TrainingSpec.model_validate({field: value, "batch_size": 8}), **parts)
        assert refused.value.field == field
    Training(network, spec=TrainingSpec(optimizer=Sgd(name="sgd")), **parts)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", VISION_TYPES)
def test_every_model_type_that_computes_twice_has_the_same_gradients(model_type: str) -> None:
    gradients = []
    for is_on in (False, True):
        torch.manual_seed(0)
        network = build_network(
            tiny(model_type), kind=TASKS["image-classification"].network, input_shape=(3, 64, 64), num_outputs=4
        )
        samples = Samples(torch.rand(4, 3, 64, 64), torch.arange(4), None, CPU)
        parts: dict[str, Any] = {
            "phase": "student",
            "samples": samples,
            "validation": TASKS["image-classification"].validation(samples, TARGETS),
            "criterion": label_criterion(network, samples, TARGETS),
        }
        try:
            each = Training(network, spec=TrainingSpec.model_validate(STEPS | {"gradient_checkpointing": is_on}), **parts)
        except UnfitTraining:
            return  # refused, with its reason
        gradients.append(train(each, Warnings()).best)
    assert same(*gradients)


@pytest.mark.parametrize("name", ["review", "fitnet"])
def test_a_method_with_a_batch_norm_of_its_own_is_measured_where_maps_are_a_single_value(name: str) -> None:
    pixels = torch.randn(20, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    samples = Samples(pixels, torch.arange(20) % 4, None, CPU)
    student, teacher = Convolutions(3, 4), Convolutions(4, 4)
    mapping = map_layers(method(name), student=student, teacher=teacher, student_inputs=pixels[:2], teacher_inputs=pixels[:2])
    each = Training(
        student,
        phase="student",
        samples=samples,
        validation=TASKS["image-classification"].validation(samples, TARGETS),
        spec=TrainingSpec.model_validate(STEPS | {"micro_batch": "auto"}),
        criterion=BatchCriterion(
            student,
            samples,
            mapping.objective(targets=TARGETS, labels=samples.labels),
            layers=mapping.student_layers,
            teacher_outputs=Teacher(teacher, tuple(mapping.teacher_shapes)),
        ),
    )
    assert train(each, Warnings()).figures.steps == 4
