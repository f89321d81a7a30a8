"""Sets the biases of a student's outputs so that it chooses each class as often as its teacher does.

A class that the student met without labels, or not at all, is one whose frequency it cannot have learned (Hinton, Vinyals, Dean,
2015, arXiv:1503.02531, section 3, raise the bias of a digit that was left out). Invariant: only the training split has a part in
it, of which the transfer rows alone where there are some. N samples, W outputs.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from service.spec.report import BiasCard
from worker.data import Data, first
from worker.data.tensors import Inputs, to_device
from worker.errors import JobFault
from worker.evaluation.class_balance import balancing_offsets
from worker.job.networks import Networks
from worker.job.roles import STUDENT
from worker.models.output_layer import NoOutputLayer, OutputLayer, find_output_layer
from worker.targets import Targets
from worker.teachers.ensemble import Teachers
from worker.trained import TrainedNetwork

POINTER = "/evaluation/correct_bias"


def correct_bias(student: TrainedNetwork, teachers: Teachers, data: Data) -> TrainedNetwork:
    """Changes the biases of the student's output layer such that its mean probability of each class is the teachers'.

    A target that no teacher teaches, and a number, stay as they are.

    Raises:
        JobFault: the student's outputs have no bias that could be set.
    """
    train = data.splits["train"]
    split = train if train.transfer is None else train.transferred
    outputs, theirs = student.outputs(split), teachers.outputs(split)
    layer = _shiftable_layer(student.network, student.samples(split).inputs_from(0, 2))
    layer.shift(_shifts(data.targets, outputs, theirs).to(outputs.device))
    corrected = student.outputs(split)
    card = BiasCard(
        rows=len(split),
        are_transfer=train.transfer is not None,
        largest_difference_before=_largest_difference(data.targets, outputs, theirs),
        largest_difference_after=_largest_difference(data.targets, corrected, theirs),
    )
    return replace(student, bias=card)


def check_bias_place(networks: Networks, student: nn.Module) -> None:
    """Raises JobFault if the student's outputs have no bias that could be set."""
    reads = networks.preprocessing(STUDENT)
    few = reads(reads.prepare(first(networks.data.splits["train"].inputs, 2)))
    _shiftable_layer(student.to(networks.device), to_device(few, networks.device))


def _shiftable_layer(network: nn.Module, inputs: Inputs) -> OutputLayer:
    try:
        layer = find_output_layer(network, inputs)
    except NoOutputLayer as error:
        raise _no_place(str(error)) from error
    if not layer.is_shiftable:
        raise _no_place("its output layer has no bias, and neither has the norm before it")
    return layer


def _no_place(reason: str) -> JobFault:
    return JobFault(
        "invalid_spec",
        f"The student's outputs have no bias that could be set: {reason}.",
        hint="Set evaluation.correct_bias to false, or take another architecture, of images small-cnn, of texts bert.",
        details={"pointer": POINTER},
    )


def _shifts(targets: Targets, outputs: Tensor, theirs: Tensor) -> Tensor:
    """(W,), in float64; 0 for what stays as it is."""
    shifts = []
    for target, ours, other in zip(targets, targets.split(outputs), targets.split(theirs), strict=True):
        if target.classes is None or target.is_multi_label or not bool(other.isfinite().all()):
            shifts.append(torch.zeros(target.width, dtype=torch.float64))
        else:
            wanted = other.to(torch.float64).softmax(dim=1).mean(dim=0)
            shifts.append(balancing_offsets(ours, wanted).cpu())
    return torch.cat(shifts)


def _largest_difference(targets: Targets, outputs: Tensor, theirs: Tensor) -> float:
    """The largest difference of the two networks' mean probabilities of a class."""
    largest = 0.0
    for target, ours, other in zip(targets, targets.split(outputs), targets.split(theirs), strict=True):
        if target.classes is not None and not target.is_multi_label and bool(other.isfinite().all()):
            means = [each.to(torch.float64).softmax(dim=1).mean(dim=0) for each in (ours, other)]
            largest = max(largest, float((means[0] - means[1]).abs().max()))
    return largest
