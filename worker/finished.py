"""The networks that a job ends with, whether it trained them or was given one. N samples, C classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.spec.architectures import Architecture
from worker.data import ImageData, Preprocessing, Split
from worker.evaluation import Measure, predict
from worker.faults import JobFault
from worker.loop import Trained, TrainingFigures, Weights
from worker.models import build_network, load_network
from worker.samples import Samples


@dataclass(frozen=True)
class FinishedNetwork:
    """A network in ``eval()`` on its device, with what it takes to use it."""

    network: nn.Module
    device: torch.device
    preprocessing: Preprocessing
    source: str
    """Where it comes from, in the spec's words."""
    architecture: dict[str, Any] | None
    figures: TrainingFigures | None = None
    """None for a network that this job did not train."""
    last_test: Measure | None = None
    """How the last weights, rather than the best, do on the test split."""
    class_order: list[int] | None = None
    """Where each of the data's classes stands in the network's logits; None: in the same order."""
    num_bytes: int | None = None
    """Size of the weights on disk, for a network that came from there."""

    def samples(self, split: Split) -> Samples:
        """A split behind this network's own preprocessing."""
        return Samples.of(split, self.preprocessing, device=self.device)

    def in_class_order(self, logits: Tensor) -> Tensor:
        """Logits (N, C) with their columns in the order of the data's classes."""
        return logits if self.class_order is None else logits[:, self.class_order]

    def logits(self, split: Split) -> Tensor:
        """The logits (N, C) for a split, in its order, columns in the order of the data's classes."""
        return self.in_class_order(predict(self.network, self.samples(split)))


def rebuild(
    weights: Weights,
    *,
    trained: Trained | None,
    last_test: Measure | None,
    architecture: Architecture,
    source: str,
    data: ImageData,
    device: torch.device,
) -> FinishedNetwork:
    """A network that this job trained, with the given weights."""
    network = build_network(architecture, input_shape=data.input_shape, num_classes=len(data.classes))
    network.load_state_dict(weights)
    return FinishedNetwork(
        network.to(device).eval(),
        device,
        data.preprocessing,
        source=source,
        architecture=architecture.model_dump(mode="json"),
        figures=trained.figures if trained else None,
        last_test=last_test,
    )


def load_teacher(folder: Path, *, source: str, data: ImageData, device: torch.device) -> FinishedNetwork:
    """A teacher from a folder; it sees the images through its own preprocessing.

    Raises:
        UnreadableNetwork: the folder cannot be loaded.
        JobFault: it reads other images, or knows other classes, than the data have.
    """
    loaded = load_network(folder)
    if loaded.input_shape != data.input_shape:
        raise JobFault(
            "invalid_spec",
            f"The teacher {source} reads images of {_shape(loaded.input_shape)}, the dataset has {_shape(data.input_shape)} "
            "(channels x height x width).",
            hint="Choose a teacher that was trained on images of that shape, or another dataset.",
        )
    if len(loaded.classes) != len(data.classes):
        raise JobFault(
            "invalid_spec",
            f"The teacher {source} tells {len(loaded.classes)} classes apart, the dataset has {len(data.classes)}.",
            hint="Choose a teacher for the dataset's own classes.",
        )
    # The same names in another order would teach one class as another. Other names are taken to stand in the same order.
    reordered = loaded.classes != data.classes and sorted(loaded.classes) == sorted(data.classes)
    return FinishedNetwork(
        loaded.network.to(device).eval(),
        device,
        loaded.preprocessing,
        source=source,
        architecture=None,
        class_order=[loaded.classes.index(name) for name in data.classes] if reordered else None,
        num_bytes=weight_bytes(folder),
    )


def weight_bytes(folder: Path) -> int:
    """Size of a network's weights on disk, whether in one file or in several."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
