"""The targets of a training as its label loss reads them: with the weights of their classes, and smoothed labels."""

from dataclasses import replace

from torch import Tensor

from service.spec.training import TrainingSpec
from worker.errors import JobFault
from worker.targets import Target, Targets, column_names


def targets_to_learn(
    targets: Targets, spec: TrainingSpec, labels: Tensor, *, weights: Tensor | None = None, place: str
) -> Targets:
    """The targets, with what the spec says of the label loss; ``labels`` and ``weights`` (N,) are the training split's samples',
    ``place`` is the spec's.

    Raises:
        JobFault: a class that has a weight is none of the targets'.
    """
    if not spec.label_smoothing and spec.class_weights is None:
        return targets
    if isinstance(spec.class_weights, dict) and (unknown := spec.class_weights.keys() - set(targets.classes)):
        name = sorted(unknown)[0]
        raise JobFault(
            "invalid_spec",
            f"There is no class {name!r} to be weighted.",
            hint=f"Name some of {', '.join(map(repr, targets.classes[:20]))}.",
            details={"pointer": f"{place}/class_weights"},
        )
    return Targets(
        tuple(
            target
            if target.classes is None
            else replace(
                target,
                label_smoothing=spec.label_smoothing,
                class_weights=_class_weights(targets, target, spec, targets.labels_of(labels, index), weights),
            )
            for index, target in enumerate(targets)
        )
    )


def _class_weights(
    targets: Targets, target: Target, spec: TrainingSpec, labels: Tensor, weights: Tensor | None
) -> tuple[float, ...] | None:
    classes = target.classes or ()
    match spec.class_weights:
        case None:
            return None
        case "balanced":
            counts = target.count(labels, weights)
            return (
                _balanced_ones(counts, _total(target.is_known(labels), weights)) if target.is_multi_label else _balanced(counts)
            )
        case by_name:
            names = classes if targets.has_classes_alone else column_names(target)
            return tuple(by_name.get(name, 1.0) for name in names)


def _balanced(counts: Tensor) -> tuple[float, ...]:
    """Weights by which each class that has labels counts as much as any other, and a label 1 on average (scikit-learn's)."""
    present = int((counts > 0).sum())
    return tuple(float(counts.sum()) / (present * count) if count else 1.0 for count in counts.tolist())


def _balanced_ones(counts: Tensor, total: float) -> tuple[float, ...]:
    """Weights by which a class's ones count as much as its zeros; 1 for one that has either alone."""
    return tuple((total - count) / count if 0 < count < total else 1.0 for count in counts.tolist())


def _total(known: Tensor, weights: Tensor | None) -> float:
    return float(known.sum() if weights is None else weights[known].double().sum())
