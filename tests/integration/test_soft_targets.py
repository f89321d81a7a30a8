"""What soft targets carry: a digit that the student never saw, and what 200 samples do not tell by themselves."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest
import torch
from torch import Tensor

from service.spec.architectures import SmallCnn
from service.spec.data import DatasetSpec
from service.spec.methods import SoftTargets
from service.spec.training import TrainingSpec
from worker.data import load_data
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.distributed.rng import seed_everything
from worker.evaluation.evaluate import predict, score_outputs
from worker.methods.layer_mapping import map_layers
from worker.models import build_network
from worker.protocol import Event, StopRequest
from worker.targets import Targets
from worker.tasks import TASKS
from worker.teachers.compute import compute_teacher_outputs
from worker.training.callbacks import TrainingReporter
from worker.training.criterion import BatchCriterion, BuildCriterion, label_criterion
from worker.training.loop import Training, train

MISSING = 3
CPU = torch.device("cpu")
DIGITS = Targets.of_classes([str(digit) for digit in range(10)])
BY_LABELS: BuildCriterion = partial(label_criterion, targets=DIGITS)


class Silent:
    def emit(self, event: Event) -> None:
        pass

    def stop_request(self) -> StopRequest | None:
        return None


def trained(
    samples: Samples,
    validation: Samples,
    *,
    width: int,
    epochs: int = 12,
    seed: int = 0,
    teach: BuildCriterion = BY_LABELS,
) -> torch.nn.Module:
    spec = TrainingSpec(epochs=epochs, seed=seed)
    seed_everything(spec.seed)
    network = build_network(SmallCnn(name="small-cnn", width=width), input_shape=(1, 8, 8), num_outputs=10)
    training = Training(
        network,
        phase="student",
        samples=samples,
        validation=TASKS["image-classification"].validation(validation, DIGITS),
        spec=spec,
        criterion=teach(network, samples),
    )
    train(training, TrainingReporter(Silent(), write_checkpoint=lambda: None))
    return network


def recall_after_bias(network: torch.nn.Module, validation: Samples, test: Samples) -> float:
    """Share of the test split's missing digits that are recognised, once that class's bias is right on the validation split.

    A student that never saw a digit is wrong about how often it comes; its bias is raised until it comes as often as it should.
    """
    logits, wanted = predict(network, validation), int((validation.labels == MISSING).sum())
    others = logits.clone()
    others[:, MISSING] = -torch.inf
    lead: Tensor = others.max(dim=1).values - logits[:, MISSING]
    bias = lead.sort().values[wanted - 1]
    answers = predict(network, test)
    answers[:, MISSING] += bias
    of_missing = test.labels == MISSING
    return (answers.argmax(dim=1)[of_missing] == MISSING).float().mean().item()


@pytest.fixture(scope="module")
def splits() -> dict[str, Samples]:
    data = load_data(DatasetSpec(source="builtin:digits", input="image"), None, task=TASKS["image-classification"])
    preprocessing = TASKS[data.task].preprocessing(data, SmallCnn(name="small-cnn"))
    return {name: Samples.of(split, preprocessing, device=CPU) for name, split in data.splits.items()}


def subset(samples: Samples, kept: Tensor | slice) -> Samples:
    return replace(samples, inputs=only_tensor(samples.inputs)[kept], labels=samples.labels[kept])


def taught_by(teacher: torch.nn.Module, samples: Samples, method: SoftTargets) -> BuildCriterion:
    """The criterion of a student of this teacher."""
    outputs = compute_teacher_outputs(teacher, samples, {}, after_batch=lambda done: None)
    few = samples.inputs_from(0, 2)
    mapping = map_layers(method, student=teacher, teacher=teacher, student_inputs=few, teacher_inputs=few)
    objective = mapping.objective(targets=DIGITS, labels=samples.labels)
    return partial(BatchCriterion, loss=objective, teacher_outputs=outputs)


@pytest.fixture(scope="module")
def teacher(splits: dict[str, Samples]) -> torch.nn.Module:
    return trained(splits["train"], splits["validation"], width=32).eval()


def test_a_student_knows_a_digit_that_only_its_teacher_saw(splits: dict[str, Samples], teacher: torch.nn.Module) -> None:
    """Hinton, Vinyals, Dean, 2015, arXiv:1503.02531, section 3."""
    validation, test = splits["validation"], splits["test"]
    transfer = subset(splits["train"], splits["train"].labels != MISSING)
    assert MISSING not in transfer.labels

    teach = taught_by(teacher, transfer, SoftTargets(temperature=8.0, label_weight=0.0))
    taught = trained(transfer, validation, width=16, teach=teach)
    alone = trained(transfer, validation, width=16)

    by_soft_targets, by_labels = (recall_after_bias(network, validation, test) for network in (taught, alone))
    assert by_soft_targets > 0.8
    assert by_labels < by_soft_targets - 0.2, "the bias alone does not do it"


def test_over_five_seeds_a_student_of_few_samples_is_better_for_its_teacher(
    splits: dict[str, Samples], teacher: torch.nn.Module, record_property: Callable[[str, object], None]
) -> None:
    """The control is the same student from the same weights, for as many updates on the same 200 samples, without the teacher."""
    validation, test, few = splits["validation"], splits["test"], subset(splits["train"], slice(200))
    teach = taught_by(teacher, few, SoftTargets(temperature=8.0, label_weight=0.0))
    gains = []
    for seed in range(5):
        student = trained(few, validation, width=8, epochs=60, seed=seed, teach=teach)
        control = trained(few, validation, width=8, epochs=60, seed=seed)
        with_teacher, without = (
            score_outputs(predict(network, test), test.labels, DIGITS).score for network in (student, control)
        )
        gains.append(with_teacher - without)
    told = f"{fmean(gains):+.2%} on average, {', '.join(f'{gain:+.2%}' for gain in gains)} by seed"
    record_property("gain", told)
    print(f"the gain of soft targets over the control: {told}")
    assert fmean(gains) > 0, told
