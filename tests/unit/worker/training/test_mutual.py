"""Deep mutual learning: the loss by hand, two networks step by step against a loop that anyone would write, and its state."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import DeepMutual
from service.spec.training import Constant, EarlyStopping, Sgd, TrainingSpec
from tests.unit.worker.training.test_loop import TARGETS, Counter, Linear, make_samples, scored
from worker.data.tensors import only_tensor
from worker.distributed.rng import seed_everything
from worker.methods import DistillationBatch, LayerPairs, LossContext, Outputs, WeightedSum, build_loss
from worker.targets import Targets
from worker.training.checkpoint import read_checkpoint, write_checkpoint
from worker.training.criterion import BatchCriterion
from worker.training.kept_weights import kept
from worker.training.loop import Training, train
from worker.training.mutual import MutualTraining

PLAIN = TrainingSpec(
    epochs=2,
    batch_size=8,
    schedule=Constant(name="constant"),
    optimizer=Sgd(name="sgd", learning_rate=0.5, momentum=0.9, weight_decay=0.0),
    gradient_clip_norm=0.5,
)


def objective(method: DeepMutual, targets: Targets = TARGETS) -> WeightedSum:
    setting = LossContext(targets, torch.arange(3), LayerPairs((), ()), {}, {})
    return WeightedSum([(method, build_loss(method, setting))], targets)


def make_mutual(spec: TrainingSpec = PLAIN) -> MutualTraining:
    seed_everything(spec.seed)
    samples = make_samples(30)
    options: dict[str, Any] = {
        "samples": samples,
        "validation": scored(make_samples(12, seed=1)),
        "spec": spec,
    }
    student, peer = Linear(), Linear()
    criteria = [BatchCriterion(each, samples, objective(DeepMutual(name="deep-mutual"))) for each in (student, peer)]
    peer_training = Training(peer, phase="teacher", criterion=criteria[1], **options)
    return MutualTraining(student, phase="student", peer=peer_training, criterion=criteria[0], **options)


def test_the_loss_is_the_cross_entropy_and_the_divergence_from_the_peer() -> None:
    student, peer = torch.tensor([[math.log(0.7), math.log(0.3)]]), torch.tensor([[math.log(0.4), math.log(0.6)]])
    step = DistillationBatch(Outputs(student), Outputs(peer), torch.tensor([0]), torch.tensor([0]))
    loss = objective(DeepMutual(name="deep-mutual"), Targets.of_classes(["a", "b"]))(step)

    divergence = 0.4 * math.log(0.4 / 0.7) + 0.6 * math.log(0.6 / 0.3)
    assert loss.item() == pytest.approx(-math.log(0.7) + divergence, rel=1e-6)


def test_it_is_the_plain_loop_over_two_networks() -> None:
    training = make_mutual()
    seed_everything(0)
    networks = [Linear(), Linear()]
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.5, momentum=0.9) for each in networks]
    for epoch in range(2):
        for indices in training.epoch_batches(epoch):
            labels = training.samples.labels[indices]
            outputs: list[Tensor] = [each(only_tensor(training.samples.inputs)[indices]) for each in networks]
            for own, other, network, optimizer in zip(outputs, outputs[::-1], networks, optimizers, strict=True):
                p, q = own.softmax(-1), other.detach().softmax(-1)
                divergence = (q * (q / p).log()).sum(-1).mean()
                optimizer.zero_grad()
                torch.autograd.backward(functional.cross_entropy(own, labels) + divergence)
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            for optimizer in optimizers:
                optimizer.step()

    train(training, Counter())
    for ours, plain in zip((training.network, training.peer.network), networks, strict=True):
        for name, weight in plain.state_dict().items():
            assert torch.allclose(ours.state_dict()[name], weight, atol=1e-6)
    assert not torch.equal(kept(networks[0])["linear.weight"], kept(networks[1])["linear.weight"])


def test_a_state_holds_both_networks(tmp_path: Path) -> None:
    whole, first, second = make_mutual(), make_mutual(), make_mutual()
    train(whole, Counter())
    for indices in first.epoch_batches(0)[:3]:
        first.update([indices])
    write_checkpoint(tmp_path / "state", first.state())
    second.restore(read_checkpoint(tmp_path / "state"))
    train(second, Counter())

    for one, other in ((whole, second), (whole.peer, second.peer)):
        assert one.finish().best["linear.weight"].equal(other.finish().best["linear.weight"])
        assert kept(one.network)["linear.weight"].equal(kept(other.network)["linear.weight"])


def test_the_student_alone_decides_when_to_stop() -> None:
    stopping = EarlyStopping(metric="loss", patience=1)
    spec = TrainingSpec(epochs=50, batch_size=8, early_stopping=stopping, optimizer=Sgd(name="sgd", learning_rate=30.0))
    training = make_mutual(spec)
    student = train(training, Counter())
    peer = training.peer.finish()

    assert student.figures.stopped_early
    assert not peer.figures.stopped_early
    assert peer.figures.steps == student.figures.steps < training.total_steps
    assert {"student/train_loss", "teacher/train_loss", "teacher/validation_accuracy"} <= training.take_points().keys()
