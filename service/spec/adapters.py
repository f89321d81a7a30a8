"""Adapters: small weights beside those of a network that stays as it is, which alone are trained."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from service.spec.strict import StrictModel

ModulePath = Annotated[str, Field(min_length=1, max_length=300)]


class Lora(StrictModel):
    """Low-rank updates of linear layers (Hu et al., 2021, arXiv:2106.09685), and its two relatives."""

    name: Literal["lora"]
    """Which adapter this is."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of each update."""
    alpha: Annotated[float, Field(gt=0, le=100_000)] = 16.0
    """Each update is multiplied by ``alpha / rank``; with ``rslora`` by ``alpha`` over the root of the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the inputs of an update that are left out in training."""
    targets: Literal["auto"] | Annotated[list[ModulePath], Field(min_length=1, max_length=200)] = "auto"
    """The modules that get an update, by their paths; ``auto``: every linear layer of the network's body."""
    variant: Literal["lora", "dora", "rslora"] = "lora"
    """``dora`` also learns the lengths of the weights' rows (Liu et al., 2024, arXiv:2402.09353); ``rslora`` scales by the root
    of the rank (Kalajdzievski, 2023, arXiv:2312.03732)."""

    @field_validator("targets")
    @classmethod
    def _each_target_once(cls, targets: str | list[str]) -> str | list[str]:
        if isinstance(targets, list) and len(set(targets)) < len(targets):
            twice = next(path for path in targets if targets.count(path) > 1)
            raise ValueError(f"each module is named once; {twice!r} is named several times")
        return targets
