"""A network that exists, as the start of a training: its body as it is saved, its head as the job's outputs ask for.

A head that has an output for each class of the job, by name, is kept, in the job's order and without its other outputs; any other
is made anew from torch's global generator, as is what a bare backbone lacks. Invariant: nothing of the body is ever made up; a
weight of it that is missing refuses the folder. W outputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from service.spec.class_names import OutputMap, UnknownOutputs, map_outputs
from service.spec.tasks import TASKS
from service.spec.transformers_fit import classifiers, task_of_config
from worker.models.build import build_network
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.models.errors import UnreadableNetwork
from worker.models.folder import (
    CONFIG_FILE,
    OWN_MODEL_TYPE,
    WEIGHTS_FILE,
    library_config,
    load_model,
    load_own_weights,
    read_config,
    read_own_config,
    refuse_mismatched,
    refuse_missing,
    remembered,
)
from worker.models.labels_file import LABELS_FILE, read_labels, targets_of_config
from worker.models.loading import FLOAT32, Loading, hold
from worker.models.network_kind import LoadedNetwork, NetworkKind
from worker.models.output_layer import output_weights, select_outputs
from worker.targets import Targets

_POOLER = "pooler."
"""Of a body: a layer that belongs to a classifier, and that a masked language model is saved without."""


@dataclass(frozen=True)
class Fitted:
    """What became of the head of a network that exists."""

    kind: Literal["kept", "mapped", "new"]
    kept: tuple[str, ...] = ()
    """The job's outputs that are the network's own."""
    made: tuple[str, ...] = ()
    """The weights that were made anew."""
    dropped: tuple[str, ...] = ()
    """The network's outputs that the job has no use for."""
    left_out: tuple[str, ...] = ()
    """The weights of the folder that the network has no place for, such as another task's head."""
    mapped: tuple[str, ...] = ()
    """The weights whose rows are the folder's in another order, or some of them."""


def load_given(folder: Path, kind: NetworkKind, *, targets: Targets, loading: Loading = FLOAT32) -> tuple[LoadedNetwork, Fitted]:
    """Loads any ``from_pretrained`` folder of one of the kind's model types, to be trained for these targets.

    The network is on the CPU, in float32 unless ``loading`` says otherwise, in ``train()``.

    Raises:
        UnreadableNetwork: the folder cannot be loaded, or lacks a part of the network's body.
        UnfitArchitecture: the network that the files describe cannot be built.
    """
    config = read_config(folder)
    load = _load_own if config.get("model_type") == OWN_MODEL_TYPE else _load_transformers
    loaded, fitted = load(folder, config, kind, targets, loading)
    hold(loaded.network, loading).train()
    return loaded, fitted


def describe_given(folder: Path, kind: NetworkKind, *, targets: Targets) -> LoadedNetwork:
    """The network of :func:`load_given` on torch's ``meta`` device, with all that stands beside it. Raises what that raises."""
    document = read_config(folder)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        if document.get("model_type") == OWN_MODEL_TYPE:
            architecture, input_shape, _ = read_own_config(document)
            network = build_network(architecture, input_shape=input_shape, num_outputs=targets.width)
        else:
            model = _build(kind, _config(document, kind), max(1, targets.width))
    if document.get("model_type") == OWN_MODEL_TYPE:
        return LoadedNetwork(network, _own_preprocessing(folder, kind, input_shape), targets, input_shape, kind)
    loaded = remembered(kind.wrap_loaded(model, folder, targets=targets), document["model_type"])
    loaded.network.train()
    return loaded


def _load_own(
    folder: Path, document: dict[str, Any], kind: NetworkKind, targets: Targets, _: Loading
) -> tuple[LoadedNetwork, Fitted]:
    architecture, input_shape, num_outputs = read_own_config(document)
    reads = _own_preprocessing(folder, kind, input_shape)
    theirs = read_labels(folder, num_outputs=num_outputs)
    build = partial(_build_own, architecture, input_shape)
    found = _find_outputs(targets, theirs)
    network = build(targets.width if found is None else num_outputs)
    names = output_weights(build, num_outputs=targets.width)
    load_own_weights(network, folder, without=names if found is None else ())
    if found is None:
        fitted = Fitted("new", made=tuple(names), dropped=tuple(theirs.classes))
    else:
        select_outputs(network, names, found.order)
        fitted = _of_map(found, targets, theirs, names)
    return LoadedNetwork(network, reads, targets, input_shape, kind), fitted


def _build_own(architecture: Any, input_shape: tuple[int, int, int], num_outputs: int) -> nn.Module:
    return build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)


def _own_preprocessing(folder: Path, kind: NetworkKind, input_shape: tuple[int, int, int]) -> Any:
    if not kind.owns(folder):
        raise UnreadableNetwork(f"it is one of the project's own networks, and none of these is {_a(TASKS[kind.task].network)}")
    return kind.read_own_preprocessing(folder, input_shape=input_shape)


def _load_transformers(
    folder: Path, document: dict[str, Any], kind: NetworkKind, targets: Targets, loading: Loading
) -> tuple[LoadedNetwork, Fitted]:
    config = _config(document, kind)
    theirs = _own_head(folder, document, config, kind)
    found = None if theirs is None else _find_outputs(targets, theirs)
    names = output_weights(partial(_build, kind, config), num_outputs=targets.width) if targets.width else []
    if targets.width and found is None:
        _set_outputs(config, targets.width)
    model, info = load_model(folder, config, kind, loading=loading)
    missing = set(filter(kind.is_needed, info["missing_keys"]))
    if found is not None and missing & set(names):  # the names are there, and the head that they name is not
        found = None
        _set_outputs(config, targets.width)
        model, info = load_model(folder, config, kind, loading=loading)
    fitted = Fitted("kept")
    if found is not None and theirs is not None:
        refuse_missing(missing, unexpected=info["unexpected_keys"])
        refuse_mismatched(info["mismatched_keys"])
        select_outputs(model, names, found.order)
        fitted = _of_map(found, targets, theirs, names)
    elif targets.width:
        refuse_missing((name for name in missing if not _may_be_made(model, name, names)), unexpected=info["unexpected_keys"])
        refuse_mismatched(wrong for wrong in info["mismatched_keys"] if wrong[0] not in names)
        made = sorted(missing | set(names))
        _make_anew(model, made)
        left_out = tuple(sorted(info["unexpected_keys"]))
        fitted = Fitted("new", made=tuple(made), dropped=() if theirs is None else tuple(theirs.classes), left_out=left_out)
    else:
        refuse_missing(missing, unexpected=info["unexpected_keys"])
        refuse_mismatched(info["mismatched_keys"])
    if targets.width:
        _name_outputs(model.config, targets)
    return remembered(kind.wrap_loaded(model, folder, targets=targets), document["model_type"]), fitted


def _config(document: dict[str, Any], kind: NetworkKind) -> Any:
    """The library's config. Raises UnreadableNetwork for a model type that is not trained for the task."""
    known = classifiers(kind.task)
    if document.get("model_type") not in known:
        info = TASKS[kind.task]
        raise UnreadableNetwork(
            f"{CONFIG_FILE}: model_type {document.get('model_type')!r} is no {info.network} that is trained here; "
            f"those are {', '.join(known)}{info.why_no_others and f' ({info.why_no_others})'}"
        )
    return library_config(document, kind)


def _own_head(folder: Path, document: dict[str, Any], config: Any, kind: NetworkKind) -> Targets | None:
    """What the outputs of the folder's own head mean; None if it is another task's."""
    if not TASKS[kind.task].targets or task_of_config(document) != kind.task:
        return None
    has_labels = (folder / LABELS_FILE).is_file()
    return read_labels(folder, num_outputs=config.num_labels) if has_labels else targets_of_config(config)


def _find_outputs(ours: Targets, theirs: Targets) -> OutputMap | None:
    """The job's outputs among the network's, by name; None if it lacks one, or one is a number, whose unit is another, or a
    class that excludes others where the job's does not, or the other way round."""
    if any(target.classes is None for target in (*ours, *theirs)):
        return None
    if {target.is_multi_label for target in ours} != {target.is_multi_label for target in theirs}:
        return None
    try:
        return map_outputs({target.name: target.classes for target in ours}, theirs.classes)
    except UnknownOutputs:
        return None


def _of_map(found: OutputMap, ours: Targets, theirs: Targets, names: Iterable[str]) -> Fitted:
    is_same = found.order == list(range(theirs.width))
    kept = Fitted("kept" if is_same else "mapped", kept=tuple(ours.classes), dropped=tuple(found.unused))
    return kept if is_same else replace(kept, mapped=tuple(names))


def _build(kind: NetworkKind, config: Any, num_outputs: int) -> nn.Module:
    """An untrained model with so many outputs."""
    _set_outputs(config := type(config).from_dict(config.to_dict()), num_outputs)
    try:
        model: nn.Module = kind.auto_class.from_config(config, trust_remote_code=False)
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
        raise UnreadableNetwork(f"{CONFIG_FILE} makes no {kind.task} network: {reason}") from error
    return model


def _set_outputs(config: Any, num_outputs: int) -> None:
    config.num_labels = num_outputs
    config.problem_type = None


def _name_outputs(config: Any, targets: Targets) -> None:
    config.id2label = dict(enumerate(targets.classes))
    config.label2id = {name: index for index, name in config.id2label.items()}


def _may_be_made(model: Any, name: str, outputs: Iterable[str]) -> bool:
    """Whether a missing weight belongs to the head: the body is what lies below the model's base, except for a pooler there."""
    prefix = f"{model.base_model_prefix}."
    if name in outputs:
        return True
    if not hasattr(model, model.base_model_prefix):
        return False
    return not name.startswith(prefix) or name.removeprefix(prefix).startswith(_POOLER)


@torch.no_grad()
def _make_anew(model: Any, names: Iterable[str]) -> None:
    """Initialises these weights as the library does, whatever they held: not every class of it fills what a file lacks."""
    layers = [model.get_submodule(path) for path in dict.fromkeys(name.rpartition(".")[0] for name in names)]
    weights = {name: weight for name, weight in model.named_parameters() if name in names}
    for weight in weights.values():
        weight.fill_(torch.nan)
        weight._is_hf_initialized = False
    for layer in layers:
        model._init_weights(layer)
        if any(bool(weight.isnan().any()) for weight in layer.parameters(recurse=False)) and hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
        if hasattr(layer, "reset_running_stats"):
            layer.reset_running_stats()
    if empty := [name for name, weight in weights.items() if bool(weight.isnan().any())]:
        raise UnreadableNetwork(f"{WEIGHTS_FILE} lacks {', '.join(empty)}, and the library does not say how to begin with it")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
