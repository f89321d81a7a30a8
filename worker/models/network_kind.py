"""How models of ``transformers`` become the networks of one task: what differs from task to task when they are built, read from a
folder and written into one.

B batch, W outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from service.spec.shapes import InputShape, TokenShape
from service.spec.tasks import TASKS, TaskName
from worker.data.preprocessing import Preprocessing
from worker.data.tensors import Inputs
from worker.targets import Targets


class NetworkKind(ABC):
    """The networks of one task. It has no state but the task's name."""

    def __init__(self, task: TaskName) -> None:
        self.task = task

    @property
    def auto_class(self) -> Any:
        """The library's class that builds and loads its models."""
        return getattr(transformers, TASKS[self.task].auto_class)

    # Building.

    @abstractmethod
    def config_fields(self, model_type: str, input_shape: InputShape, *, num_outputs: int) -> dict[str, Any]:
        """Fields of a model's config that the data determine."""

    @abstractmethod
    def wrap_built(self, model: Any, *, input_shape: InputShape) -> nn.Module:
        """Wraps a model that is built here, untrained, in a plain module."""

    def blank(self, input_shape: InputShape, count: int) -> Inputs:
        """Makes ``count`` blank inputs of that shape, without any padding."""
        return blank(input_shape, count)

    def output_shape(self, network: nn.Module, input_shape: InputShape, *, num_outputs: int) -> tuple[int, ...]:
        """Shape of the network's outputs for one sample."""
        return (num_outputs,)

    # Folders.

    def owns(self, folder: Path) -> bool:
        """Whether a folder's network, one of the project's own, is of this task. Raises UnreadableNetwork."""
        return False

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Raises UnreadableNetwork for a ``config.json`` of this task whose outputs are not read here."""
        return

    def read_own_preprocessing(self, folder: Path, *, input_shape: tuple[int, int, int]) -> Preprocessing:
        """Reads the preprocessing beside one of the project's own networks. Raises UnreadableNetwork."""
        raise TypeError(f"no network of the project's own is a {TASKS[self.task].network}")

    def is_needed(self, weight: str) -> bool:
        """Whether the network computes with that weight of its model."""
        return True

    @abstractmethod
    def wrap_loaded(self, model: Any, folder: Path, *, targets: Targets | None = None) -> "LoadedNetwork":
        """Wraps a model that was loaded from a folder, and reads what stands beside it. Raises UnreadableNetwork.

        ``targets`` are what its outputs mean; by default what the folder says.
        """

    @abstractmethod
    def write(self, network: Any, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
        """Writes the model, and what only this task has beside it."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its preprocessing and the meaning of its outputs."""

    network: nn.Module
    preprocessing: Preprocessing
    targets: Targets
    input_shape: InputShape
    kind: NetworkKind

    @property
    def classes(self) -> list[str]:
        """Name of each output."""
        return self.targets.classes


def token_fields(input_shape: InputShape) -> dict[str, Any]:
    """Fields of a text network's config: its vocabulary and its special tokens."""
    if not isinstance(input_shape, TokenShape):
        return {}
    return {
        "vocab_size": input_shape.vocabulary,
        "pad_token_id": input_shape.pad,
        "bos_token_id": input_shape.start,
        "eos_token_id": input_shape.end,
    }


def blank(input_shape: InputShape, count: int) -> torch.Tensor:
    """Makes ``count`` blank inputs of that shape, without any padding token."""
    if isinstance(input_shape, TokenShape):
        any_token = next(token for token in range(input_shape.vocabulary) if token != input_shape.pad)
        return torch.full((count, input_shape.length), any_token)
    return torch.zeros(count, *input_shape)
