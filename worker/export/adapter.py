"""A trained adapter as a folder, and the check that it makes of its base what was exported as the merged network.

Invariant: the check loads both from their files, as their users will, on the CPU.
"""

import copy
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn

from service.spec.cards.network import AdapterCard
from service.spec.source import split_source
from worker.data import Data, Split
from worker.data.samples import Samples
from worker.errors import JobFault
from worker.export.units import few_inputs, rounding_of_units
from worker.models.adapters import ADAPTER_WEIGHTS, Adapter, adapter_of, read_adapter, write_adapter
from worker.models.build import built_from
from worker.models.depth import inner_model
from worker.models.output_layer import find_output_layer
from worker.sources.folder_files import CARD_FILE
from worker.tasks import TASKS, load_network
from worker.trained import TrainedNetwork

_CARD = """\
---
base_model: {base}
{licence}library_name: peft
---

# An adapter of {base}

{variant} of rank {rank}, trained by distillation. The folder beside this one has the whole network, with it merged.{told}

```python
{program}
```
"""
_LIBRARYS = """\
from peft import PeftModel
from transformers import {auto_class}

base = {auto_class}.from_pretrained({base!r}{options})
network = PeftModel.from_pretrained(base, {folder!r}).eval()
"""
_OWN = """\
from pathlib import Path

{imports}from peft import PeftModel
from stillhouse import load_network

base = load_network(Path({base!r})).network
{heads}network = PeftModel.from_pretrained(base, {folder!r}).eval()
"""
_CHECKED_SAMPLES = 16
_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-5}
"""Of the largest output, or of 1: sums in another order; in bf16 merging rounds each weight once more."""


def export_adapter(network: TrainedNetwork, folder: Path, *, data: Data) -> None:
    """Writes the adapter of a network, whose head has the data's units.

    Raises:
        NoOutputLayer: the network has no layer to fold the units into.
    """
    adapted = cast(nn.Module, network.adapted)
    if data.targets.units is not None:
        adapted = copy.deepcopy(adapted)
        find_output_layer(adapted, few_inputs(network, data)).rescale(*data.targets.units)
    source, _, revision = network.source.partition("@")
    base = source.removeprefix("hub:").removeprefix("file:")
    write_adapter(adapted, folder, base=base, revision=revision or None)
    (folder / CARD_FILE).write_text(_card(network, data, base=base, revision=revision, folder=folder.name), encoding="utf-8")


def _card(network: TrainedNetwork, data: Data, *, base: str, revision: str, folder: str) -> str:
    adapter, kind = _adapter_of(network), built_from(network.network).kind
    options = f", revision={revision!r}" if revision else ""
    if adapter.new:
        options += f", num_labels={data.targets.width}, ignore_mismatched_sizes=True"
    is_in_service = split_source(network.source).kind in {"job", "model"}
    told = "" if not is_in_service else f" In the program, `base` is the folder of {base}."
    place = "base" if is_in_service else base
    new = {path: inner_model(network.network).get_submodule(path) for path in adapter.new}
    heads = "".join(f"base.set_submodule({path!r}, nn.{layer!r})\n" for path, layer in new.items())
    program = (
        _OWN.format(imports="from torch import nn\n" if heads else "", base=place, heads=heads, folder=folder)
        if kind is None
        else _LIBRARYS.format(auto_class=kind.auto_class.__name__, base=place, options=options, folder=folder)
    )
    licence = network.start.licence if network.start is not None else None
    said = f"license: {json.dumps(licence)}\n" if licence is not None else ""
    return _CARD.format(
        base=base, licence=said, variant=adapter.lora.variant, rank=adapter.lora.rank, program=program.rstrip(), told=told
    )


def _adapter_of(network: TrainedNetwork) -> Adapter:
    adapter = None if network.adapted is None else adapter_of(network.adapted)
    if adapter is None:
        raise TypeError("this network has no adapter")
    return adapter


def check_adapter(
    folder: Path, network: TrainedNetwork, *, merged: Path, base: Callable[[], nn.Module], split: Split, data: Data
) -> AdapterCard:
    """Compares the adapter in ``folder``, on a ``base`` loaded for it, with the ``merged`` network's folder on some of a split.

    Raises:
        JobFault: their outputs differ by more than rounding.
    """
    adapter = _adapter_of(network)
    task, targets, loaded = TASKS[data.task], data.targets, load_network(merged)
    # So few texts may not fill a row of tokens.
    few = split if split.is_packed else split.at(torch.arange(min(_CHECKED_SAMPLES, len(split))))
    samples = Samples.of(few, loaded.preprocessing, device=torch.device("cpu")).first(_CHECKED_SAMPLES)
    expected = targets.standardise(task.compared_outputs(loaded.network, samples))
    del loaded
    gc.collect()  # in float32 these are the largest networks of a job: one of the two at a time
    adapted = base().float()
    read_adapter(adapted, folder)
    outputs = targets.standardise(task.compared_outputs(adapted.eval(), samples))
    largest = expected.abs().max().clamp(min=1)
    differences = (outputs - expected).abs()
    tolerance = _TOLERANCES[next(network.network.parameters()).dtype] * largest
    if not bool((differences <= tolerance + (rounding_of_units(targets).to(outputs) if targets.width else 0)).all()):
        raise JobFault(
            "export_mismatch",
            f"The exported {folder.name} makes of {network.source} another network than the exported {merged.name}: "
            "their outputs differ by more than rounding.",
            hint="Leave the adapter out, or name other targets.",
            details={"largest_difference": float(differences.max().nan_to_num(nan=-1.0))},
        )
    return AdapterCard(
        name=adapter.lora.name,
        variant=adapter.lora.variant,
        rank=adapter.lora.rank,
        alpha=adapter.lora.alpha,
        targets=len(adapter.targets),
        parameters=adapter.num_parameters,
        bytes=(folder / ADAPTER_WEIGHTS).stat().st_size,
        largest_difference=float(differences.max() / largest),
    )
