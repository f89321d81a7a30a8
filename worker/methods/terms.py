"""From a method of the spec to the loss that a training minimises. ``LOSSES`` has one entry for each name in ``METHODS``.

B batch, C classes or channels, H height, W width, D width of a vector. A term is a scalar of one :class:`DistillationBatch`, the
method's own loss without its weights; one with weights or memory of its own is a module, which is trained and checkpointed with
the student.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.spec.methods import (
    AttentionTransfer,
    ContrastiveDistillation,
    CorrelationCongruence,
    CorrelationDistillation,
    DecoupledDistillation,
    DeepMutual,
    DistilBert,
    DistillationNetwork,
    EmbeddingDistillation,
    FitNet,
    KnowledgeReview,
    Labels,
    LogitStandardization,
    MultiTask,
    OneForAll,
    RelationalDistillation,
    Softened,
    TeacherFree,
    VariationalInformation,
)
from worker.methods import feature, relation, response
from worker.methods.batch import DistillationBatch
from worker.methods.compared import features, hidden_states, one_size, pooled, pooled_features, resized, token_features
from worker.methods.crd import ContrastiveMemory
from worker.methods.embedding import EmbeddingLoss
from worker.methods.layer_pairs import LayerPairs, UnfitLayers
from worker.methods.review import KnowledgeReview as ReviewModule
from worker.methods.soft_targets import soft_targets
from worker.methods.tasks import MultiTaskLoss, distillation_network, teacher_losses
from worker.targets import Targets, label_loss

Loss = Callable[[DistillationBatch], Tensor]


@dataclass(frozen=True)
class LossContext:
    """What a term is built for."""

    targets: Targets
    labels: Tensor
    """(N,) or (N, M), of the training split."""
    pairs: LayerPairs
    student_shapes: Mapping[str, torch.Size]
    """By layer, without the batch."""
    teacher_shapes: Mapping[str, torch.Size]
    same_tokens: bool = True
    """Whether student and teacher read a text as the same tokens; of no meaning for anything else."""
    widths: tuple[int, int] = (0, 0)
    """Of the student's and the teacher's outputs, for a method that asks."""

    def shape_pairs(self) -> list[tuple[torch.Size, torch.Size]]:
        """The compared layers' shapes, the student's first."""
        ours, theirs = self.pairs.student, self.pairs.teacher
        return [(self.student_shapes[one], self.teacher_shapes[other]) for one, other in zip(ours, theirs, strict=True)]


class Objective(nn.Module):
    """The weighted sum of a spec's terms, on outputs in float32 at least."""

    def __init__(self, terms: Sequence[tuple[Any, Loss]], targets: Targets) -> None:
        super().__init__()
        self._terms, self._targets = terms, targets
        self.modules_of_terms = nn.ModuleList(loss for _, loss in terms if isinstance(loss, nn.Module))

    def forward(self, batch: DistillationBatch) -> Tensor:
        total: Tensor | None = None
        for spec, loss in self._terms:
            value = _weighted(spec, loss, batch, self._targets)
            total = value if total is None else total + value
        assert total is not None
        return total


def build_loss(spec: Any, setting: LossContext) -> Loss:
    """One term of the spec. Raises UnfitLayers."""
    return _labels(spec, setting) if isinstance(spec, Labels) else LOSSES[spec.name](spec, setting)


def _weighted(spec: Any, loss: Loss, batch: DistillationBatch, targets: Targets) -> Tensor:
    value = loss(batch)
    weight = spec.weight
    warmup = getattr(spec, "warmup_epochs", 0.0)
    if warmup > 0:
        weight *= min(1.0, batch.epoch / warmup)
    if weight != 1:
        value = weight * value
    # These weigh their labels themselves.
    has_labels = isinstance(spec, Softened | DistillationNetwork | MultiTask | Labels | EmbeddingDistillation)
    label_weight = 0.0 if has_labels else spec.label_weight
    return (
        value + label_weight * label_loss(targets, batch.student.logits, batch.labels, batch.mixture) if label_weight else value
    )


# ------------------------------------------------------------ outputs


def _labels(spec: Labels, setting: LossContext) -> Loss:
    return lambda batch: label_loss(setting.targets, batch.student.logits, batch.labels, batch.mixture)


def _soft_targets(spec: Softened, setting: LossContext) -> Loss:
    return lambda batch: soft_targets(
        spec, setting.targets, batch.student.logits, batch.teacher_outputs.logits, batch.labels, mixture=batch.mixture
    )


def _distillation_network(spec: DistillationNetwork, setting: LossContext) -> Loss:
    return lambda batch: distillation_network(spec, setting.targets, batch)


def _multi_task(spec: MultiTask, setting: LossContext) -> Loss:
    return MultiTaskLoss(spec, setting.targets)


def _deep_mutual(spec: DeepMutual, setting: LossContext) -> Loss:
    """Of either network; the other is its teacher."""
    return lambda batch: teacher_losses(
        setting.targets, batch.student.logits, batch.teacher_outputs.logits, divergence="kl", temperature=spec.temperature
    ).sum()


def _dkd(spec: DecoupledDistillation, setting: LossContext) -> Loss:
    return lambda batch: response.decoupled(
        batch.student.logits,
        batch.teacher_outputs.logits,
        batch.labels,
        alpha=spec.alpha,
        beta=spec.beta,
        temperature=spec.temperature,
    )


def _dist(spec: CorrelationDistillation, setting: LossContext) -> Loss:
    return lambda batch: response.correlation(
        batch.student.logits, batch.teacher_outputs.logits, beta=spec.beta, gamma=spec.gamma, temperature=spec.temperature
    )


def _logit_standardization(spec: LogitStandardization, setting: LossContext) -> Loss:
    def loss(batch: DistillationBatch) -> Tensor:
        ours, theirs = response.standardized(batch.student.logits), response.standardized(batch.teacher_outputs.logits)
        match spec.loss:
            case "kl":
                return response.kl_divergence(ours, theirs, temperature=spec.temperature)
            case "dkd":
                return response.decoupled(ours, theirs, batch.labels, alpha=1.0, beta=8.0, temperature=spec.temperature)
            case "dist":
                return response.correlation(ours, theirs, beta=1.0, gamma=1.0, temperature=spec.temperature)

    return loss


def _teacher_free(spec: TeacherFree, setting: LossContext) -> Loss:
    return lambda batch: response.virtual_teacher(
        batch.student.logits, batch.labels, correct_probability=spec.correct_probability, temperature=spec.temperature
    )


class _Exits(nn.Module):
    """OFA: the student's own output, and an exit at each of its stages."""

    def __init__(self, spec: OneForAll, setting: LossContext) -> None:
        super().__init__()
        self._spec, self._layers = spec, setting.pairs.student
        self.exits = nn.ModuleList(
            nn.Linear(_channels(setting.student_shapes[layer]), setting.targets.width) for layer in self._layers
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        teacher_outputs = batch.teacher_outputs.logits
        logits = [batch.student.logits]
        logits += [out(pooled(batch.student, layer)) for out, layer in zip(self.exits, self._layers, strict=True)]
        epsilon, temperature = self._spec.epsilon, self._spec.temperature
        losses = [
            response.one_for_all(each, teacher_outputs, batch.labels, epsilon=epsilon, temperature=temperature) for each in logits
        ]
        return torch.stack(losses).sum()


# ------------------------------------------------------------ features


def _fitnet(spec: FitNet, setting: LossContext) -> Loss:
    _need_same_tokens(spec.name, setting)
    regressors = nn.ModuleList(Regressor(ours, theirs) for ours, theirs in setting.shape_pairs())
    return _Through(regressors, setting.pairs, feature.hint)


def _attention_transfer(spec: AttentionTransfer, setting: LossContext) -> Loss:
    _need_maps(spec.name, setting)
    return _over_layers(setting, lambda ours, theirs: feature.attention(*one_size(ours, theirs), power=spec.power))


def _similarity_preserving(spec: Any, setting: LossContext) -> Loss:
    return _over_layers(setting, feature.similarity)


def _nst(spec: Any, setting: LossContext) -> Loss:
    _need_maps(spec.name, setting)
    return _over_layers(setting, lambda ours, theirs: feature.neuron_selectivity(*one_size(ours, theirs)))


class _Variational(nn.Module):
    def __init__(self, spec: VariationalInformation, setting: LossContext) -> None:
        super().__init__()
        _need_same_tokens(spec.name, setting)
        self._pairs = setting.pairs
        self.regressors = nn.ModuleList(
            feature.VariationalRegressor(
                _channels(ours),
                _channels(theirs),
                initial_variance=spec.initial_variance,
                spatial=_is_map(ours) and _is_map(theirs),
            )
            for ours, theirs in setting.shape_pairs()
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            regressor(*one_size(ours, theirs))
            for regressor, (ours, theirs) in zip(self.regressors, token_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()


class _Review(nn.Module):
    def __init__(self, spec: KnowledgeReview, setting: LossContext) -> None:
        super().__init__()
        _need_maps(spec.name, setting)
        self._pairs = setting.pairs
        ours, theirs = zip(*setting.shape_pairs(), strict=True)
        self.review = ReviewModule(ours, theirs, width=spec.width)

    def forward(self, batch: DistillationBatch) -> Tensor:
        ours, theirs = zip(*features(batch, self._pairs), strict=True)
        loss: Tensor = self.review(ours, theirs)
        return loss


class _HiddenStates(nn.Module):
    """DistilBERT's: the divergence of the outputs, and the angle between hidden states."""

    def __init__(self, spec: DistilBert, setting: LossContext) -> None:
        super().__init__()
        _need_same_tokens(spec.name, setting)
        self._spec, self._pairs = spec, setting.pairs
        self.projections = nn.ModuleList()
        for ours, theirs in setting.shape_pairs():
            are_tokens = len(ours) == 2, len(theirs) == 2
            if any(are_tokens) and ours[:-1] != theirs[:-1]:
                raise UnfitLayers(
                    f"layers of shape {tuple(ours)} and {tuple(theirs)} have no token of the one for each of the other: "
                    "name others in layers"
                )
            widths = _channels(ours), _channels(theirs)
            self.projections.append(nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths))

    def forward(self, batch: DistillationBatch) -> Tensor:
        spec = self._spec
        cosines = [
            functional.cosine_similarity(projection(ours), theirs, dim=-1).mean()
            for projection, (ours, theirs) in zip(self.projections, hidden_states(batch, self._pairs), strict=True)
        ]
        kl = response.kl_divergence(batch.student.logits, batch.teacher_outputs.logits, temperature=spec.temperature)
        return spec.kl_weight * kl + spec.cosine_weight * (1 - torch.stack(cosines)).sum()


class Regressor(nn.Module):
    """From one layer's shape to another's: a 1x1 convolution for maps, brought to one size first, else linear."""

    def __init__(self, student: torch.Size, teacher: torch.Size) -> None:
        super().__init__()
        self._target = teacher
        if _is_map(student) and _is_map(teacher):
            self.map: nn.Module = nn.Sequential(
                nn.Conv2d(student[0], teacher[0], 1, bias=False), nn.BatchNorm2d(teacher[0]), nn.ReLU()
            )
        elif len(student) == len(teacher) and student[:-1] == teacher[:-1]:  # vectors, or one for each token
            self.map = nn.Linear(student[-1], teacher[-1])
        else:
            raise UnfitLayers(f"layers of shape {tuple(student)} and {tuple(teacher)} cannot be compared: name others in layers")

    def forward(self, features: Tensor) -> Tensor:
        """(B, *student) to (B, *teacher)."""
        if _is_map(self._target):
            features = resized(features, self._target[-2:])
        mapped: Tensor = self.map(features)
        return mapped


# ------------------------------------------------------------ relations


def _rkd(spec: RelationalDistillation, setting: LossContext) -> Loss:
    return _over_vectors(
        setting,
        lambda ours, theirs: relation.relational(
            ours, theirs, distance_weight=spec.distance_weight, angle_weight=spec.angle_weight
        ),
    )


def _pkt(spec: Any, setting: LossContext) -> Loss:
    return _over_vectors(setting, relation.probabilistic)


class _Congruence(nn.Module):
    def __init__(self, spec: CorrelationCongruence, setting: LossContext) -> None:
        super().__init__()
        self._pairs = setting.pairs
        shapes = setting.shape_pairs()
        self.student = nn.ModuleList(nn.Linear(_channels(ours), spec.dimension) for ours, _ in shapes)
        self.teacher = nn.ModuleList(nn.Linear(_channels(theirs), spec.dimension) for _, theirs in shapes)

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            relation.congruence(student(ours), teacher(theirs))
            for student, teacher, (ours, theirs) in zip(
                self.student, self.teacher, pooled_features(batch, self._pairs), strict=True
            )
        ]
        return torch.stack(losses).sum()


class _Contrast(nn.Module):
    def __init__(self, spec: ContrastiveDistillation, setting: LossContext) -> None:
        super().__init__()
        self._pairs = setting.pairs
        self.memories = nn.ModuleList(
            ContrastiveMemory(
                _channels(ours),
                _channels(theirs),
                labels=setting.labels,
                dimension=spec.dimension,
                num_negatives=spec.negatives,
                temperature=spec.temperature,
                momentum=spec.momentum,
            )
            for ours, theirs in setting.shape_pairs()
        )

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            memory(ours, theirs, batch.indices)
            for memory, (ours, theirs) in zip(self.memories, pooled_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()


def _embedding(spec: EmbeddingDistillation, setting: LossContext) -> Loss:
    ours, theirs = setting.widths
    return EmbeddingLoss(spec, student_width=ours, teacher_width=theirs)


# ------------------------------------------------------------ what they share


class _Through(nn.Module):
    """A loss on the student's layers behind a regressor each."""

    def __init__(self, regressors: nn.ModuleList, pairs: LayerPairs, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.regressors, self._pairs, self._loss = regressors, pairs, loss

    def forward(self, batch: DistillationBatch) -> Tensor:
        losses = [
            self._loss(regressor(ours), theirs)
            for regressor, (ours, theirs) in zip(self.regressors, token_features(batch, self._pairs), strict=True)
        ]
        return torch.stack(losses).sum()


def _over_layers(setting: LossContext, loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    pairs = setting.pairs
    return lambda batch: torch.stack([loss(ours, theirs) for ours, theirs in features(batch, pairs)]).sum()


def _over_vectors(setting: LossContext, loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    pairs = setting.pairs
    return lambda batch: torch.stack([loss(ours, theirs) for ours, theirs in pooled_features(batch, pairs)]).sum()


def _is_map(shape: torch.Size) -> bool:
    return len(shape) == 3


def _channels(shape: torch.Size) -> int:
    """Width of what :func:`pooled` makes of it."""
    return shape[0] if len(shape) != 2 else shape[1]


def _need_same_tokens(name: str, setting: LossContext) -> None:
    if setting.same_tokens or not any(len(shape) == 2 for pair in setting.shape_pairs() for shape in pair):
        return
    raise UnfitLayers(
        f"{name} compares token by token, and student and teacher read texts as other tokens: leave student.tokenizer out, so "
        "that the student reads as its teacher, or take a method that compares one vector for each text, such as rkd or pkt"
    )


def _need_maps(name: str, setting: LossContext) -> None:
    for ours, theirs in setting.shape_pairs():
        if not (_is_map(ours) and _is_map(theirs)):
            raise UnfitLayers(
                f"{name} compares maps (channels, height, width), and these layers have shape {tuple(ours)} and {tuple(theirs)}: "
                "name others in layers"
            )


LOSSES: dict[str, Callable[[Any, LossContext], Loss]] = {
    "soft-targets": _soft_targets,
    "distillation-network": _distillation_network,
    "multi-task": _multi_task,
    "dkd": _dkd,
    "dist": _dist,
    "logit-standardization": _logit_standardization,
    "ofa": _Exits,
    "teacher-free": _teacher_free,
    "fitnet": _fitnet,
    "attention-transfer": _attention_transfer,
    "similarity-preserving": _similarity_preserving,
    "nst": _nst,
    "vid": _Variational,
    "review": _Review,
    "distilbert": _HiddenStates,
    "rkd": _rkd,
    "pkt": _pkt,
    "correlation-congruence": _Congruence,
    "crd": _Contrast,
    "embedding": _embedding,
    "deep-mutual": _deep_mutual,
    "born-again": _soft_targets,
    "teacher-assistant": _soft_targets,
}
