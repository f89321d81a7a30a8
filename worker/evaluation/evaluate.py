"""Outputs of networks on data that they were not trained on; scores and agreement of outputs of labelled targets.

Invariant: an evaluation changes nothing. Networks run in ``eval()`` without gradients, and their mode is restored afterwards.
N samples, B batch, W outputs.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.data.samples import Samples
from worker.distributed.ranks import SINGLE_PROCESS, ProcessGroup
from worker.eval_mode import in_eval_mode
from worker.evaluation.metrics import ROUNDING
from worker.evaluation.precision import Precision
from worker.methods.multi_task import teacher_losses
from worker.targets import Target, Targets, label_loss, target_losses

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class EvaluationResult:
    """How well outputs match the labels."""

    score: float
    """The task's own score, such as accuracy; without labels the agreement with the teacher. Higher is better."""
    loss: float
    """The task's own loss, such as the mean cross-entropy."""


def predict(
    network: nn.Module,
    samples: Samples,
    *,
    precision: Precision | None = None,
    teacher_outputs: Tensor | None = None,
    after_batch: Callable[[int], None] | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Tensor:
    """Computes the network's outputs (N, W) for all samples, in their order, in float32, on the samples' device.

    ``teacher_outputs`` (N, W) are a further input of the network. Without ``precision`` the forward pass is in float32 as well.
    ``after_batch`` gets the number of samples done, and may raise to stop. Each rank of ``group`` computes some of the batches,
    and all ranks get all outputs.
    """
    precision = precision or Precision(samples.device, None)

    def outputs_from(start: int) -> Mapping[str, Tensor]:
        inputs = samples.inputs_from(start, EVALUATION_BATCH)
        further = () if teacher_outputs is None else (teacher_outputs[start : start + EVALUATION_BATCH].to(samples.device),)
        with precision.forward_pass():
            return {"logits": network(inputs, *further).to(torch.float32)}

    samples.announce_all(EVALUATION_BATCH, group)
    pieces, num_done = [], 0
    with in_eval_mode(network):
        for piece in group.all_gather_batches(range(0, len(samples), EVALUATION_BATCH), outputs_from):
            pieces.append(piece["logits"])
            num_done += len(piece["logits"])
            if after_batch is not None:
                after_batch(num_done)
    return torch.cat(pieces)


def score_outputs(outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> EvaluationResult:
    """Score and loss of outputs (N, W) against labels (N,) or (N, M). Samples without a label for a target are left out of it.

    ``only`` names the targets that are scored; None: all.
    """
    outputs, labels = outputs.to(torch.float64), labels.to(outputs.device)
    scored = [
        _score(target, part, targets.labels_of(labels, index))
        for index, (target, part) in _parts(targets, outputs)
        if only is None or target.name in only
    ]
    scores, is_known = (torch.stack(each) for each in zip(*scored, strict=True))
    score_of_known = (scores * is_known).sum() / is_known.sum().clamp(min=1)
    if only is None:
        whole_loss = label_loss(targets, outputs, labels)
    else:
        counts = torch.tensor([target.name in only for target in targets], device=outputs.device)
        whole_loss = target_losses(targets, outputs, labels)[counts].sum()
    # One transfer for both: on a GPU each transfer waits for all work before it.
    score, loss = torch.stack([score_of_known, whole_loss]).tolist()
    return EvaluationResult(score=score, loss=loss)


def score_by_teacher(
    outputs: Tensor, teacher_outputs: Tensor, targets: Targets, *, only: Collection[str] | None = None
) -> EvaluationResult:
    """Scores outputs (N, W) by those of a teacher (N, W), where there are no labels: the agreement, and the divergence as loss.

    Of a number the score is R² with the teacher's outputs as the labels, for a correlation is 1 also of outputs that are shifted
    or scaled; of several targets the mean. ``only`` names the targets that the teacher teaches; None: all. The loss is
    KL(teacher ‖ student) of classes, in nats, and the squared error of a standardised number, summed over the targets.
    """
    outputs, teacher_outputs = outputs.to(torch.float64), teacher_outputs.to(outputs.device, torch.float64)
    scores = []
    for target, ours, theirs in zip(targets, targets.split(outputs), targets.split(teacher_outputs), strict=True):
        if only is None or target.name in only:
            if target.classes is None:
                scores.append(_score(target, ours, theirs[:, 0])[0])
            else:
                scores.append(_class_score(target, ours, target.chosen(theirs), theirs.isfinite().all(dim=-1))[0])
    share = torch.stack(scores).mean()
    losses = teacher_losses(targets, outputs, teacher_outputs, divergence="kl", temperature=1.0)
    return EvaluationResult(score=share.item(), loss=losses.sum().item())


def _parts(targets: Targets, outputs: Tensor) -> list[tuple[int, tuple[Target, Tensor]]]:
    return list(enumerate(zip(targets, targets.split(outputs), strict=True)))


def _score(target: Target, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The score of one target's outputs (N, its width), a scalar, and whether any sample has a label to score it by.

    R² of constant labels is 1 if all predictions are equal to them, else 0.
    """
    if target.classes is not None:
        return _class_score(target, outputs, target.decided(labels), target.is_known(labels))
    known = target.is_known(labels)
    count = known.sum().clamp(min=1)
    labels = labels.nan_to_num(nan=0.0).to(torch.float64)
    errors = ((outputs[:, 0] - labels).square() * known).sum()
    spread = ((labels - (labels * known).sum() / count).square() * known).sum()
    explained = torch.where(spread > 0, 1 - errors / spread.where(spread > 0, 1.0), (errors == 0).double())
    return explained, known.any()


def _class_score(target: Target, outputs: Tensor, wanted: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The accuracy, or of classes by themselves the F1 of all yeses, beside what :meth:`Target.chosen` should give (N, …)."""
    if target.is_multi_label:
        right, given = f1_parts(target.chosen(outputs), wanted)
        return (right * known).sum() / (given * known).sum().clamp(min=1), known.any()
    hits = ((target.chosen(outputs) == wanted) & known).sum().double()
    return hits / known.sum().clamp(min=1), known.any()


def f1_parts(chosen: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Counts by row of yeses (N, C) twice the right ones, and all given and all wanted: the sums' ratio is the micro F1."""
    both = (chosen & wanted).sum(dim=-1).double()
    return 2 * both, chosen.sum(dim=-1).double() + wanted.sum(dim=-1).double()


def agreement(first: Tensor, second: Tensor, targets: Targets, *, only: Collection[str] | None = None) -> float:
    """The agreement of two networks' outputs (N, W), at most 1: the fraction of samples with the same predicted
    class, or set of classes.

    For a number it is their correlation, 0 if either is constant but for rounding; for several targets the mean over those in
    ``only``.
    """
    agreements = []
    for target, one, other in zip(targets, targets.split(first), targets.split(second), strict=True):
        if only is not None and target.name not in only:
            continue
        if target.classes is not None:
            same = target.chosen(one) == target.chosen(other)
            agreements.append((same.all(dim=-1) if target.is_multi_label else same).double().mean())
        else:
            numbers = torch.stack([one[:, 0], other[:, 0]]).double()
            varies = (numbers.amax(dim=1) - numbers.amin(dim=1) > ROUNDING * numbers.abs().amax(dim=1)).all()
            agreements.append(torch.corrcoef(numbers)[0, 1].nan_to_num(nan=0.0) * varies)
    return torch.stack(agreements).mean().item()
