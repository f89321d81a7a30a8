"""Metrics of networks' outputs: against labels, numbers, another network's outputs, and over independent runs.

Invariant: a metric is a finite number, for JSON has no NaN, and is computed in float64 whatever the outputs' precision. Outputs
are finite; missing labels (class -1, number NaN) are left out. N samples, C classes, D and E widths. The libraries are imported
where they are used: together they take seconds.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from worker.methods.embedding import pair_similarities
from worker.methods.response import bernoulli_divergence
from worker.targets import Targets, label_loss

ROUNDING = 1e-6
"""Outputs in float32 that differ by no more than this share of the largest are the same."""
_CALIBRATION_BINS = 15
_MAX_COMPARED_ROWS = 2_000
"""2,000 rows have two million pairs."""

_Numbers = npt.NDArray[np.float64]


def target_metrics(
    outputs: Tensor, labels: Tensor, targets: Targets, *, only: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """The metrics of outputs (N, W) against labels (N,) or (N, M), by target.

    Targets without any label are left out, as are those that ``only`` does not name, unless it is None. Errors of numbers are in
    the data's units.
    """
    metrics = {}
    for index, (target, part) in enumerate(zip(targets, targets.split(outputs), strict=True)):
        if only is not None and target.name not in only:
            continue
        target_labels = targets.labels_of(labels, index)
        if target.classes is None:
            if bool(target.is_known(target_labels).any()):
                metrics[target.name] = regression_metrics(part[:, 0], target_labels, scale=target.scale)
        elif bool((known := target.is_known(target_labels)).any()):
            if target.is_multi_label:
                metrics[target.name] = multi_label_metrics(part[known.to(part.device)], target_labels[known])
                continue
            metrics[target.name] = classification_metrics(part, target.decided(target_labels))
            if target.label_kind == "probabilities":
                metrics[target.name]["loss"] = label_loss(
                    Targets((target,)), part.to(torch.float64), target_labels.to(part.device)
                ).item()
    return metrics


def target_agreement(
    teacher: Tensor, student: Tensor, targets: Targets, *, only: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """The metrics of a student's outputs (N, W) against its teacher's, by target, or by those in ``only``.

    Numbers are compared by :func:`regression_metrics`.
    """
    return {
        target.name: regression_metrics(ours[:, 0], theirs[:, 0], scale=target.scale)
        if target.classes is None
        else multi_label_agreement(theirs, ours)
        if target.is_multi_label
        else agreement_metrics(theirs, ours)
        for target, theirs, ours in zip(targets, targets.split(teacher), targets.split(student), strict=True)
        if only is None or target.name in only
    }


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of logits (N, C) against labels (N,), -1 for none.

    ``loss`` is the mean cross-entropy, in nats. ``macro_f1`` is the mean over the classes that occur among labels or predictions.
    ``calibration_error`` is the expected calibration error of the predicted classes' probabilities in 15 bins (Guo et al., 2017).
    ``top_5_accuracy`` is present for more than five classes.

    Raises:
        ValueError: no sample has a label.
    """
    from sklearn.metrics import f1_score
    from torchmetrics.functional.classification import multiclass_calibration_error

    labels = labels.to(logits.device)
    present = labels >= 0
    logits, labels = logits[present].to(torch.float64), labels[present]
    if len(labels) == 0:
        raise ValueError("no sample has a label, so there is nothing to measure")
    num_classes = logits.shape[1]
    predictions = logits.argmax(dim=1)
    # torchmetrics takes logits between 0 and 1 for probabilities, and gives float32 probabilities of 1 a bin of their own.
    probabilities = logits.softmax(dim=1).clamp(max=1 - 2**-24)
    metrics = {
        "accuracy": (predictions == labels).double().mean().item(),
        "loss": functional.cross_entropy(logits, labels).item(),
        # The memory of scikit-learn's grows with the samples, of torchmetrics' with the square of the classes.
        "macro_f1": float(f1_score(labels.cpu().numpy(), predictions.cpu().numpy(), average="macro", zero_division=0.0)),
        "calibration_error": multiclass_calibration_error(
            probabilities, labels, num_classes=num_classes, n_bins=_CALIBRATION_BINS, validate_args=False
        ).item(),
    }
    if num_classes > 5:
        # The libraries' functions are 30 times slower: they make one-hot tables (N, C) or sort all classes.
        metrics["top_5_accuracy"] = (logits.topk(5).indices == labels[:, None]).any(dim=1).double().mean().item()
    return metrics


def multi_label_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of logits (N, C) against labels (N, C) of 0 and 1, of classes that do not exclude each other.

    A class is predicted from a probability of 0.5 on. ``mean_average_precision`` is the mean over the classes that occur, of
    all thresholds; ``micro_f1`` counts all yeses alike, ``macro_f1`` is the mean over the classes that occur among labels or
    predictions; ``exact_match`` is the share of samples with all classes right; ``loss`` the mean binary cross-entropy, in nats.
    """
    from sklearn.metrics import average_precision_score, f1_score

    logits, labels = logits.to("cpu", torch.float64), labels.to("cpu", torch.float64)
    wanted, chosen = labels > 0, logits > 0
    occurs, told = wanted.any(dim=0), (wanted | chosen).any(dim=0)
    precisions = [float(average_precision_score(wanted[:, at].numpy(), logits[:, at].numpy())) for at in occurs.nonzero()[:, 0]]
    by_class = (
        f1_score(wanted[:, told].numpy(), chosen[:, told].numpy(), average=None, zero_division=0.0) if told.any() else [0.0]
    )
    return {
        "mean_average_precision": float(np.mean(precisions)) if precisions else 0.0,
        "micro_f1": float(f1_score(wanted.numpy(), chosen.numpy(), average="micro", zero_division=0.0)),
        "macro_f1": float(np.mean(by_class)),
        "exact_match": (wanted == chosen).all(dim=1).double().mean().item(),
        "loss": functional.binary_cross_entropy_with_logits(logits, labels).item(),
    }


def multi_label_agreement(teacher_logits: Tensor, student_logits: Tensor) -> dict[str, float]:
    """As :func:`agreement_metrics`, of classes by themselves: equal sets of classes, and the mean over samples and classes of
    KL(teacher ‖ student) of each yes or no."""
    teacher, student = teacher_logits.to("cpu", torch.float64), student_logits.to("cpu", torch.float64)
    return {
        "agreement": ((teacher > 0) == (student > 0)).all(dim=1).double().mean().item(),
        "kl_divergence": bernoulli_divergence(student, teacher, divergence="kl", temperature=1.0).mean().item(),
    }


def regression_metrics(outputs: Tensor, values: Tensor, *, scale: float = 1.0) -> dict[str, float]:
    """Metrics of outputs (N,) against values (N,), NaN for none; ``mse`` and ``mae`` in a unit of which ``scale`` make theirs.

    ``pearson`` and ``spearman`` are 0 if either side is constant. ``r2`` of constant values is 1 if all outputs equal
    them, else 0.

    Raises:
        ValueError: no sample has a value.
    """
    # torchmetrics' r2 treats variances below 1e-4 as zero, and its ranks of many ties overflow.
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    predicted, true = _as_numbers(outputs), _as_numbers(values)
    present = ~np.isnan(true)
    predicted, true = predicted[present], true[present]
    if len(true) == 0:
        raise ValueError("no sample has a value, so there is nothing to measure")
    pearson, spearman = _correlations(predicted, true)
    mse = float(mean_squared_error(true, predicted))
    return {
        "mse": mse * scale**2,
        "mae": float(mean_absolute_error(true, predicted)) * scale,
        "pearson": pearson,
        "spearman": spearman,
        # The library has no R² of a single value.
        "r2": float(r2_score(true, predicted)) if len(true) > 1 else float(mse == 0),
    }


def embedding_metrics(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Metrics of a student's embeddings (N, D) against a teacher's (N, E) for the same samples.

    ``similarity_pearson`` and ``similarity_spearman`` compare the cosine similarities of all pairs of samples (of at most 2,000,
    always the same) in one network with those in the other, 0 if either's are constant. ``cosine`` and ``mse`` are means over
    the samples, present if the widths are equal.
    """
    student, teacher = student.to("cpu", torch.float64), teacher.to("cpu", torch.float64)
    metrics = {}
    if student.shape == teacher.shape:
        metrics["cosine"] = functional.cosine_similarity(student, teacher).mean().item()
        metrics["mse"] = functional.mse_loss(student, teacher).item()
    # Drawn at random, not the first or every nth: rows may be in the order of their classes.
    rows = torch.randperm(len(student), generator=torch.Generator().manual_seed(0))[:_MAX_COMPARED_ROWS]
    pearson, spearman = _correlations(*(_as_numbers(pair_similarities(embeddings[rows])) for embeddings in (student, teacher)))
    return metrics | {"similarity_pearson": pearson, "similarity_spearman": spearman}


def agreement_metrics(teacher_logits: Tensor, student_logits: Tensor) -> dict[str, float]:
    """Metrics of a student's logits (N, C) against its teacher's.

    ``agreement`` is the fraction of samples with the same predicted class; ``kl_divergence`` is the mean over the samples of
    KL(teacher ‖ student) at temperature 1, in nats.
    """
    teacher_logits = teacher_logits.to(student_logits.device)
    teacher = teacher_logits.to(torch.float64).log_softmax(dim=1)
    student = student_logits.to(torch.float64).log_softmax(dim=1)
    return {
        "agreement": (teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1)).double().mean().item(),
        "kl_divergence": functional.kl_div(student, teacher, log_target=True, reduction="batchmean").item(),
    }


def interval_95(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of independent runs and half the width of its 95 % confidence interval, by Student's t.

    The half width is None for a single value, which has no spread.
    """
    from scipy.stats import sem, t

    if not values:
        raise ValueError("an interval needs at least one value")
    half_width = float(t.ppf(0.975, df=len(values) - 1) * sem(values)) if len(values) > 1 else None
    return float(np.mean(values)), half_width


def _as_numbers(tensor: Tensor) -> _Numbers:
    numbers: _Numbers = tensor.to("cpu", torch.float64).numpy()
    return numbers


def _correlations(first: _Numbers, second: _Numbers) -> tuple[float, float]:
    """Pearson's and Spearman's correlation, each 0 if a side is constant."""
    from scipy.stats import pearsonr, spearmanr

    if _is_constant(first) or _is_constant(second):
        return 0.0, 0.0
    return float(pearsonr(first, second).statistic), float(spearmanr(first, second).statistic)


def _is_constant(numbers: _Numbers) -> bool:
    """Whether all numbers are equal but for rounding; a single number is constant."""
    return len(numbers) < 2 or bool(np.ptp(numbers) <= ROUNDING * np.abs(numbers).max())
