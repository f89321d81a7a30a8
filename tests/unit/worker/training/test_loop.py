"""The training loop: what an update is, what it records, what it keeps, and how it ends."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.training import AdamW, Constant, EarlyStopping, Sgd, TrainingSpec
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.distributed.rng import seed_everything
from worker.errors import JobFault
from worker.evaluation.evaluate import EvaluationResult
from worker.methods import DistillationBatch
from worker.methods.batch import Loss
from worker.targets import Targets
from worker.tasks import TASKS
from worker.training.checkpoint import read_checkpoint, write_checkpoint
from worker.training.criterion import BatchCriterion, label_criterion
from worker.training.kept_weights import kept
from worker.training.loop import Training, train
from worker.training.validation import Validation

CPU = torch.device("cpu")
TARGETS = Targets.of_classes(["a", "b", "c"])


class Linear(nn.Module):
    """Images (B, 1, 2, 2) to logits (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits


class Counter:
    """Counts the steps, and may do something at each."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, training: Training) -> None:
        self.steps.append(training.step)


def make_samples(num_samples: int, *, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num_samples, 1, 2, 2, generator=generator)
    labels = images.flatten(1)[:, :3].argmax(dim=-1)
    return Samples(images, labels, None, CPU)


def make_training(spec: TrainingSpec, *, num_samples: int = 30, loss: Loss | None = None, **changes: Any) -> Training:
    seed_everything(spec.seed)
    network, samples = Linear(), make_samples(num_samples)
    arguments: dict[str, Any] = {
        "phase": "student",
        "samples": samples,
        "validation": scored(make_samples(12, seed=1)),
        "spec": spec,
        "criterion": BatchCriterion(network, samples, loss) if loss else label_criterion(network, samples, TARGETS),
    } | changes
    return Training(network, **arguments)


def scored(samples: Samples) -> Validation:
    """A validation split that is scored by its labels."""
    return TASKS["image-classification"].validation(samples, TARGETS)


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        (TrainingSpec(epochs=3, batch_size=8), 12),
        (TrainingSpec(epochs=3, batch_size=8, gradient_accumulation=3), 6),
        (TrainingSpec(max_steps=7, batch_size=8), 7),
        (TrainingSpec(max_steps=2, batch_size=64), 2),
    ],
)
def test_a_training_makes_the_steps_that_its_spec_says(spec: TrainingSpec, steps: int) -> None:
    counter = Counter()
    trained = train(make_training(spec), counter)

    assert counter.steps == list(range(1, steps + 1))
    assert trained.figures.steps == steps


def test_it_learns() -> None:
    trained = train(make_training(TrainingSpec(epochs=40, batch_size=8, optimizer=AdamW(learning_rate=0.1))), Counter())

    assert trained.figures.best_validation.score > 0.8


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    schedule, optimizer = Constant(name="constant"), Sgd(name="sgd", learning_rate=0.5)
    # 30 samples: batches of 8, 8, 8 and 6, whose means weigh unequally in the mean of all.
    parts = TrainingSpec(epochs=3, batch_size=8, gradient_accumulation=4, schedule=schedule, optimizer=optimizer)
    whole = TrainingSpec(epochs=3, batch_size=30, schedule=schedule, optimizer=optimizer)

    ends = [train(make_training(spec), Counter()) for spec in (parts, whole)]

    assert ends[0].figures.steps == ends[1].figures.steps == 3
    assert ends[0].last is not None
    assert ends[1].last is not None
    for name, weight in ends[0].last.items():
        assert torch.allclose(weight, ends[1].last[name], atol=1e-6)


def test_it_is_the_plain_loop_that_anyone_would_write() -> None:
    spec = TrainingSpec(epochs=2, batch_size=8, schedule=Constant(name="constant"), gradient_clip_norm=0.1)
    training = make_training(spec)
    samples = training.samples
    seed_everything(0)
    network = Linear()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.003, weight_decay=0.01, fused=True)
    for epoch in range(2):
        for indices in training.epoch_batches(epoch):
            optimizer.zero_grad()
            torch.autograd.backward(
                functional.cross_entropy(network(only_tensor(samples.inputs)[indices]), samples.labels[indices])
            )
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            optimizer.step()

    train(training, Counter())

    for name, weight in kept(network).items():
        assert torch.equal(weight, training.network.state_dict()[name])


def test_each_step_and_each_epoch_is_a_point_in_a_short_training() -> None:
    training = make_training(TrainingSpec(max_steps=6, batch_size=8))  # four steps an epoch
    train(training, Counter())
    points = training.take_points()

    assert {name: [step for step, _ in values] for name, values in points.items()} == {
        "student/train_loss": [1, 2, 3, 4, 5, 6],
        "student/learning_rate": [1, 2, 3, 4, 5, 6],
        "student/validation_accuracy": [4, 6],
        "student/validation_loss": [4, 6],
    }
    assert training.take_points() == {}


def test_a_long_training_makes_points_of_windows_and_loses_no_step() -> None:
    losses: list[float] = []

    def objective(step: DistillationBatch) -> Tensor:
        loss = functional.cross_entropy(step.student.logits, step.labels)
        losses.append(loss.item())
        return loss

    training = make_training(TrainingSpec(max_steps=2_501, batch_size=30), loss=objective)
    train(training, Counter())
    points = training.take_points()["student/train_loss"]

    assert [step for step, _ in points] == [*range(3, 2_501, 3), 2_501]
    assert points[0][1] == pytest.approx(sum(losses[:3]) / 3, rel=1e-12)
    assert points[-1][1] == pytest.approx(sum(losses[-2:]) / 2, rel=1e-12)


def poison(training: Training, index: int) -> None:
    images = only_tensor(training.samples.inputs).clone()
    images[index] = math.inf
    training.criterion = label_criterion(training.network, Samples(images, training.samples.labels, None, CPU), TARGETS)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_not_finite_names_its_very_step(accumulation: int) -> None:
    spec = TrainingSpec(epochs=100, batch_size=2, gradient_accumulation=accumulation)
    training = make_training(spec, num_samples=60)
    position = torch.cat(training.epoch_batches(0)).tolist().index(33)
    poison(training, 33)

    with pytest.raises(JobFault) as caught:
        train(training, Counter())

    step = position // (2 * accumulation) + 1
    assert caught.value.code == "non_finite_loss"
    assert caught.value.details == {"phase": "student", "step": step, "epoch": 1}
    assert f"at step {step} of" in caught.value.message


def test_no_state_is_taken_after_a_loss_that_was_not_finite() -> None:
    training = make_training(TrainingSpec(epochs=1, batch_size=30))
    poison(training, 0)
    training.update(training.epoch_batches(0))

    with pytest.raises(JobFault, match="at step 1"):
        training.state()


def test_no_state_is_taken_of_weights_that_are_not_finite() -> None:
    training = make_training(TrainingSpec(epochs=1, batch_size=30))
    with torch.no_grad():
        next(iter(training.network.parameters())).fill_(math.nan)

    with pytest.raises(JobFault, match="weights"):
        training.state()


def test_weights_broken_by_the_last_update_are_never_the_best() -> None:
    spec = TrainingSpec(
        epochs=1, batch_size=30, optimizer=Sgd(name="sgd", learning_rate=1000.0), schedule=Constant(name="constant")
    )

    def objective(step: DistillationBatch) -> Tensor:
        # Finite, with a gradient beyond float32.
        logits = step.student.logits
        return (logits * 1e30).sum() * 1e30 * 0 + (logits.sum() * 1e20).sin() * 1e19

    training = make_training(spec, loss=objective)
    with pytest.raises(JobFault) as caught:
        train(training, Counter())

    assert caught.value.code == "non_finite_loss"
    assert training.best is None


def scripted(monkeypatch: pytest.MonkeyPatch, results: list[EvaluationResult]) -> None:
    """The validation figures of each epoch, in place of those measured."""
    remaining = iter(results)
    monkeypatch.setattr(Validation, "evaluate", lambda validation, network, **options: next(remaining))


def test_the_best_weights_are_those_of_the_best_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(
        monkeypatch,
        [
            EvaluationResult(0.5, 1.0),
            EvaluationResult(0.8, 0.9),
            EvaluationResult(0.8, 0.7),
            EvaluationResult(0.8, 0.8),
            EvaluationResult(0.7, 0.1),
        ],
    )
    training = make_training(TrainingSpec(epochs=5, batch_size=30))
    weights = []

    class Keeper:
        def on_step_end(self, training: Training) -> None:
            weights.append(kept(training.network))

    trained = train(training, Keeper())

    # Among equal accuracies, the lower loss.
    assert trained.figures.best_step == 3
    assert trained.figures.best_validation == EvaluationResult(0.8, 0.7)
    assert trained.figures.last_validation == EvaluationResult(0.7, 0.1)
    assert all(torch.equal(trained.best[name], weights[2][name]) for name in trained.best)


@pytest.mark.parametrize(
    ("metric", "steps"),
    # The loss improves until the fourth evaluation, the accuracy until the second.
    [("accuracy", 4), ("loss", 6)],
)
def test_early_stopping_waits_for_its_own_metric(monkeypatch: pytest.MonkeyPatch, metric: Any, steps: int) -> None:
    accuracies, losses = [0.5, 0.6, 0.6, 0.6, 0.5, 0.5, 0.5], [1.0, 0.9, 0.8, 0.7, 0.7, 0.8, 0.9]
    scripted(monkeypatch, [EvaluationResult(*pair) for pair in zip(accuracies, losses, strict=True)])
    spec = TrainingSpec(epochs=7, batch_size=30, early_stopping=EarlyStopping(metric=metric, patience=2))

    trained = train(make_training(spec), Counter())

    assert trained.figures.stopped_early
    assert trained.figures.steps == steps


def test_a_number_of_steps_overrules_early_stopping_but_not_the_schedule() -> None:
    spec = TrainingSpec(epochs=50, batch_size=30, early_stopping=EarlyStopping(patience=1))
    planned = make_training(spec)
    exact = make_training(spec, num_steps=20)

    trained = train(exact, Counter())

    assert trained.figures.steps == 20
    assert exact.total_steps == planned.total_steps == 50


def test_a_training_stopped_at_any_step_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows of several steps and of several evaluations.
    monkeypatch.setattr("worker.training.metric_points.MAX_POINTS", 2)
    spec = TrainingSpec(
        epochs=4,
        batch_size=8,
        gradient_accumulation=2,
        gradient_clip_norm=1.0,
        optimizer=AdamW(learning_rate=0.05),
        early_stopping=EarlyStopping(patience=3),
    )
    checkpoints: list[Path] = []

    class Keeper:
        def on_step_end(self, training: Training) -> None:
            checkpoints.append(tmp_path / f"{training.step}.safetensors")
            write_checkpoint(checkpoints[-1], training.state())

    whole = make_training(spec)
    undisturbed = train(whole, Keeper())
    points = whole.take_points()
    assert undisturbed.last is not None
    for path in checkpoints:
        training = make_training(spec)
        training.restore(read_checkpoint(path))
        resumed = train(training, Counter())

        assert resumed.last is not None
        for name in undisturbed.best:
            assert torch.equal(resumed.best[name], undisturbed.best[name])
            assert torch.equal(resumed.last[name], undisturbed.last[name])
        assert resumed.figures.best_validation == undisturbed.figures.best_validation
        assert resumed.figures.train_loss == undisturbed.figures.train_loss
        for name, values in training.take_points().items():
            assert values == points[name][-len(values) :]


def test_half_precision_is_refused_on_a_cpu() -> None:
    with pytest.raises(JobFault, match="a CPU does not train in") as caught:
        make_training(TrainingSpec(precision="fp16"))

    assert caught.value.code == "invalid_spec"


def test_bfloat16_keeps_the_weights_in_float32() -> None:
    training = make_training(TrainingSpec(epochs=2, batch_size=8, precision="bf16"))
    computed_in: set[torch.dtype] = set()
    training.network.get_submodule("linear").register_forward_hook(lambda _, __, output: computed_in.add(output.dtype))
    trained = train(training, Counter())

    assert computed_in == {torch.bfloat16}
    assert {weight.dtype for weight in trained.best.values()} == {torch.float32}
