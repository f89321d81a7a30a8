"""Adapters: small updates of some layers of a network that itself stays as it is, by ``peft``, which is imported here alone.

The updated layers stand at their old paths. Invariant: an adapter changes no weight and no statistic that it found, which may be
another network's too (:func:`share_weights`); merging makes new ones. Only a layer that the network runs, and whose weight is its
own, has an update: past its layer a weight is read without it, and a shared weight would change in two places.
"""

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize
from transformers.pytorch_utils import Conv1D

from service.spec.adapters import Lora
from service.spec.shapes import TokenShape
from worker.data.tensors import to_device
from worker.eval_mode import in_eval_mode
from worker.models.build import built_from, num_parameters
from worker.models.depth import inner_model
from worker.models.hidden_layers import find_hidden_layers
from worker.models.network_kind import blank
from worker.quiet import quiet

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_LINEAR = (nn.Linear, Conv1D)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_MOST_NAMED = 12
_MOST_TOKENS = 16
"""Of a blank text: which layers run does not depend on its length."""


class UnfitAdapter(ValueError):
    """The network has no place for the adapter; the message says what there is."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in a network, of which it alone is trained."""

    lora: Lora
    targets: tuple[str, ...]
    """Paths of the updated layers in the library's model, or in a network of the project's own."""
    new: tuple[str, ...]
    """Paths of the layers that it holds whole, since the network was not found with them."""
    names: frozenset[str]
    """Of the entries of the network's state_dict that training changes: those of the updates and of new layers."""
    tuner: Any
    """The ``peft.PeftModel`` around the library's model."""

    @property
    def num_parameters(self) -> int:
        """Number of weights that are saved as the adapter."""
        return sum(
            weight.numel()
            for name, weight in self.tuner.named_parameters()
            if any(part in name for part in (".lora_", ".modules_to_save."))
        )


def attach(network: nn.Module, lora: Lora, *, new_weights: Iterable[str] = ()) -> None:
    """Gives a network updates of its layers, drawn from torch's global generator, and freezes everything else.

    The modules of ``new_weights``, weights of the library's model that it was not loaded with, are trained whole beside them.

    Raises:
        UnfitAdapter: a target is no layer that can have an update.
    """
    model = inner_model(network)
    new = sorted({name.rpartition(".")[0] for name in new_weights})
    targets = target_paths(network, lora.targets, but=new)
    with _peft() as peft, next(model.parameters()).device:
        config = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(targets),
            modules_to_save=new or None,
            use_dora=lora.variant == "dora",
            use_rslora=lora.variant == "rslora",
            fan_in_fan_out=isinstance(model.get_submodule(targets[0]), Conv1D),
        )
        tuner = peft.PeftModel(model, config, autocast_adapter_dtype=False)
        whole = [path for path, module in model.named_modules() if isinstance(module, peft.utils.ModulesToSaveWrapper)]
    if sorted(tuner.base_model.targeted_module_names) != targets or sorted(whole) != new:
        raise UnfitAdapter("peft finds other modules by the paths of these targets: name fewer of them, each by its whole path")
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    names = frozenset(name for name in network.state_dict() if name in trained or ".modules_to_save." in name)
    network.adapter = Adapter(lora, tuple(targets), tuple(new), names, tuner)  # type: ignore[assignment]


def adapted_name(name: str) -> str:
    """The name in an adapted network of a weight of a layer that is trained whole."""
    path, _, leaf = name.rpartition(".")
    return f"{path}.modules_to_save.default.{leaf}"


def adapter_of(network: nn.Module) -> Adapter | None:
    """The adapter that :func:`attach` gave a network; None for one that is trained whole."""
    return getattr(network, "adapter", None)


def update_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of an adapted network's updates, without those of layers that the adapter holds whole."""
    return [weight for name, weight in network.named_parameters() if ".lora_" in name]


def num_merged_parameters(network: nn.Module) -> int:
    """Number of weights of a network, of one with an adapter once it is merged."""
    adapter = adapter_of(network)
    # A layer that the adapter holds whole is there twice.
    return num_parameters(network) - (0 if adapter is None else adapter.num_parameters)


def frozen_norms(network: nn.Module) -> list[nn.Module]:
    """The norms beside an adapter whose running statistics are to stay as they are, which they do in evaluation mode."""
    if adapter_of(network) is None:
        return []
    norms = (module for module in network.modules() if isinstance(module, _NormBase))
    return [norm for norm in norms if not any(weight.requires_grad for weight in norm.parameters())]


def target_paths(network: nn.Module, targets: str | Sequence[str], *, but: Sequence[str] = ()) -> list[str]:
    """Finds the layers of ``targets``, sorted; of ``auto`` the linear ones of the hidden layers, or else the convolutions.

    A target names each layer whose path is it, or ends with it after a dot, as of ``peft``. Layers in ``but`` are left out.

    Raises:
        UnfitAdapter: a target is no layer that can have an update; the message names those that can.
    """
    model = inner_model(network)
    runs = _running(network)
    fit = {path: module for path, module in model.named_modules() if path not in but and not _unfit(model, path, module, runs)}
    if isinstance(targets, str):
        found = None if model is network else find_hidden_layers(model)
        body = {path: each for path, each in fit.items() if found is None or path.startswith(f"{found[0]}.")}
        linear = [path for path, module in body.items() if isinstance(module, _LINEAR)] if found else []
        paths = linear or [path for path, module in body.items() if isinstance(module, _CONVOLUTIONS)]
        if not paths:
            raise UnfitAdapter(f"its body has no linear layer and no convolution; {_choice(fit)}")
        return sorted(paths)
    paths = []
    for target in targets:
        named = [path for path, _ in model.named_modules() if path == target or path.endswith(f".{target}")]
        if not named:
            raise UnfitAdapter(f"it has no module {target!r}; {_choice(fit)}")
        for path in named:
            if path not in fit:
                reason = _unfit(model, path, model.get_submodule(path), runs) or "is new and trained whole"
                inside = {each: module for each, module in fit.items() if each.startswith(f"{path}.")}
                raise UnfitAdapter(f"{path!r} {reason}; {_choice(inside or fit)}")
        paths += named
    return sorted(set(paths))


def merged(network: nn.Module) -> nn.Module:
    """Copies an adapted network as a plain one with the updates in its weights; it shares the weights that have none."""
    adapter = _needed(network)
    own = {f"{path}.base_layer." for path in adapter.targets}
    memo = {
        id(weight): weight
        for name, weight in inner_model(network).named_parameters()
        if not any(name.startswith(prefix) for prefix in own) and not weight.requires_grad
    }
    # What the network was built from is told apart by its identity.
    made = copy.deepcopy(network, memo | {id(built_from(network)): built_from(network)})
    with _peft():
        _needed(made).tuner.merge_and_unload(safe_merge=True)
    del made.adapter
    return made


def write_adapter(network: nn.Module, folder: Path, *, base: str, revision: str | None) -> None:
    """Writes the adapter as ``PeftModel.from_pretrained`` reads it, of a network that was loaded from ``base``."""
    adapter = _needed(network)
    folder.mkdir(parents=True, exist_ok=True)
    with _peft() as peft:
        weights: Mapping[str, Tensor] = peft.get_peft_model_state_dict(adapter.tuner, save_embedding_layers=False)
        config = copy.copy(adapter.tuner.peft_config["default"])
        config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
        config.save_pretrained(folder)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(contiguous, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def read_adapter(network: nn.Module, folder: Path) -> None:
    """Gives a plain network the adapter in a folder, by ``PeftModel.from_pretrained`` as its users will."""
    with _peft() as peft:
        peft.PeftModel.from_pretrained(inner_model(network), folder, autocast_adapter_dtype=False)


def share_weights(network: nn.Module, other: nn.Module) -> None:
    """Has a network use the weights of another one in place of its own frozen ones, where these are the same bits.

    The ``other`` is never trained from here on; its weights and the network's are in memory once.
    """
    theirs = dict(other.named_parameters(remove_duplicate=False))
    for module_path, module in network.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            path = f"{module_path}.{name}".removeprefix(".").replace(".base_layer.", ".")
            same = theirs.get(path)
            if same is not None and not weight.requires_grad and _same_bits(weight, same):
                setattr(module, name, same.requires_grad_(False))


def _same_bits(ours: Tensor, theirs: Tensor) -> bool:
    alike = (ours.shape, ours.dtype, type(ours)) == (theirs.shape, theirs.dtype, type(theirs))
    return alike and torch.equal(_bytes(ours.to(theirs.device)), _bytes(theirs))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _unfit(model: nn.Module, path: str, module: nn.Module, runs: Set[nn.Module]) -> str:
    """Why a module can have no update; empty if it can."""
    if type(module) not in (*_LINEAR, *_CONVOLUTIONS):
        return f"is a {type(module).__name__}, and only linear and convolutional layers have updates"
    if isinstance(module, _CONVOLUTIONS) and not _is_plain(module):
        return "is a convolution with groups, dilation or a padding of its own, into which no update can be merged"
    if module not in runs:
        return "has a weight that is read without the layer being run, so that its update would learn nothing"
    if parametrize.is_parametrized(module) or not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "has a weight that is computed from others"
    holders = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is module.weight]
    if len(holders) > 1:
        other = next(name for name in holders if name != f"{path}.weight")
        return f"shares its weight with {other}, which would change as well"
    return ""


def _is_plain(layer: nn.Conv1d | nn.Conv2d) -> bool:
    """``peft`` copies kernel, stride and padding of a convolution, and nothing else."""
    return layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"


def _running(network: nn.Module) -> Set[nn.Module]:
    """The modules that run in a forward pass; all of a network without values."""
    weight = next(network.parameters())
    if weight.is_meta:
        return set(network.modules())
    built, ran = built_from(network), set[nn.Module]()
    shape = built.input_shape
    if isinstance(shape, TokenShape):
        shape = replace(shape, length=min(shape.length, _MOST_TOKENS))
    inputs = blank(shape, 2) if built.kind is None else built.kind.blank(shape, 2)
    with ExitStack() as hooks, in_eval_mode(network), torch.random.fork_rng(devices=[]):
        for module in network.modules():
            hooks.callback(module.register_forward_pre_hook(lambda module, _: ran.add(module)).remove)
        network(to_device(inputs, weight.device))
    return ran


def _choice(fit: Mapping[str, nn.Module]) -> str:
    """Names the layers that can have an update; those that stand in several blocks by what their paths have in common."""
    ends = dict.fromkeys(re.sub(r"^.*\.\d+\.", "", path) for path in fit)
    if not ends:
        return "no layer of this network can have an update: leave the adapter out"
    named = ", ".join(list(ends)[:_MOST_NAMED])
    return f"name {'one or more of ' if len(ends) > 1 else ''}{named}{' …' if len(ends) > _MOST_NAMED else ''}"


def _needed(network: nn.Module) -> Adapter:
    adapter = adapter_of(network)
    if adapter is None:
        raise TypeError(f"this {type(network).__name__} has no adapter")
    return adapter


@contextmanager
def _peft() -> Iterator[Any]:
    """``peft``, which takes seconds to import, as it imports torchao and bitsandbytes, and none of what they tell of kernels."""
    with quiet("bitsandbytes"), warnings.catch_warnings():
        # It asks the library's models by a name that they are to lose.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # It corrects a setting that is one for all layers, where a network has both kinds of linear layer.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        try:
            import peft
        except ImportError as error:
            raise UnfitAdapter("this host lacks peft, which stillhouse[worker] installs") from error

        yield peft
