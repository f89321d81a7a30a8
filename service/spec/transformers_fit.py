"""Whether a ``transformers`` config makes a network for a task and given inputs.

Told from a table of the library's config classes, ``transformers_configs.json``, which is written by
``python -m worker.models.transformers_table``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from service.errors import FieldError
from service.spec.architectures import TransformersNetwork
from service.spec.shapes import InputShape, TokenShape
from service.spec.tasks import TASKS, InputKind, TaskName, first_task

TABLE_FILE = Path(__file__).with_name("transformers_configs.json")

# The fields that the data decide.
_FROM_DATA = ("num_channels", "image_size", "num_labels")
POSITIONS = ("max_position_embeddings", "n_positions")
"""What a config calls the most tokens that its network has positions for."""
COUNTS_FROM_PADDING = {"roberta", "xlm-roberta"}
"""Networks whose first position comes after the id of their padding."""
_RELATIVE_POSITIONS = {"gpt_neox", "llama", "mistral", "modernbert", "qwen2", "qwen3"}
"""Networks with rotary embeddings, which can be computed for any position."""
# Networks with a position embedding for each patch: what a patch does not cover at the border is not seen at all.
_PATCH_GRIDS = {"beit", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "ijepa", "vit", "vit_msn"}
# Networks whose code takes one number for both sides, whatever their config says.
_SQUARE_ONLY = {"dinov2", "dinov2_with_registers", "levit", "pvt"}
# Far above any published network; keeps a typing error from asking for a terabyte.
_LARGEST_INTEGER = 65_536
_MOST_LAYERS = 1_000
_ACTIVATIONS = {"activation_function", "activation"}
_MAY_BE_ZERO = {"num_hidden_layers", "num_register_tokens", "patch_padding"}


def classifiers(task: str) -> list[str]:
    """The model types that may stand in a spec of that task."""
    info = next((info for name, info in TASKS.items() if name == task), None)
    types: list[str] = _table()["tasks"].get((info and info.model_types) or task, [])
    return types if info is None else [name for name in types if name not in info.without_model_types]


def classifier_tasks() -> list[TaskName]:
    """The tasks that have model types of their own."""
    return list(_table()["tasks"])


def task_of(model_type: str) -> TaskName | None:
    """The task whose inputs that model type reads; None for one that is not known."""
    return next((task for task, types in _table()["tasks"].items() if model_type in types), None)


def task_of_config(config: Mapping[str, Any]) -> TaskName | None:
    """The task of a network with that ``config.json``, told by ``architectures`` where a model type has several."""
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if not isinstance(model_type, str):
        return None
    named = [str(name) for name in architectures] if isinstance(architectures, list) else []
    meant = {task: max(map(len, endings)) for task in TASKS if (endings := _endings_of(task, named))}
    # ``GPT2LMHeadModel`` ends in what means an encoder too: the longer ending says more.
    told = max(meant, key=lambda task: meant[task], default=None)
    return told if told is not None and model_type in classifiers(told) else task_of(model_type)


def config_fields(model_type: str) -> dict[str, dict[str, Any]]:
    """The fields of that model's config class: JSON types and default."""
    fields: dict[str, dict[str, Any]] = _table()["model_types"][model_type]
    return fields


def transformers_faults(
    architecture: TransformersNetwork, *, input_shape: InputShape, num_outputs: int, task: TaskName | None = None
) -> list[FieldError]:
    """Finds every fault, with pointers into the architecture.

    ``task`` is what the network is for; None for what the shape says.
    """
    task = _listed_for(task or _task_for(input_shape), architecture.model_type, input_shape)
    known = classifiers(task)
    model_type = architecture.model_type
    if model_type not in known:
        known_types = ", ".join(known)
        message = (
            f"{model_type!r} is no {TASKS[task].network} of transformers{_meant(model_type, known)}; use one of {known_types}"
        )
        return [FieldError(pointer="/model_type", message=message)]
    fields = config_fields(model_type)
    faults = list(_field_faults(architecture, fields, decided=_decided(input_shape, num_outputs)))
    if not faults:
        # Only a config of the right types can be reckoned with.
        values = {name: field["default"] for name, field in fields.items()} | architecture.config
        match input_shape:
            case TokenShape():
                faults = list(_token_faults(model_type, values, input_shape))
            case (_, height, width) if TASKS[task].input_kind == "image":
                faults = list(_shape_faults(model_type, fields, values, height=height, width=width))
            case (num_samples,):
                faults = [*_frame_faults(values, num_samples=num_samples), *_head_faults(values)]
            case _:
                faults = list(_head_faults(values))
    return faults


def first_position(model_type: str, pad: int | None) -> int:
    """The position of a text's first token, in a network with that pad token: some keep those up to the padding's for padding."""
    if model_type == "mpnet":
        return 2  # its code has 1 for padding, whatever its config says
    return (pad or 0) + 1 if model_type in COUNTS_FROM_PADDING else 0


def has_position_embeddings(values: Mapping[str, Any]) -> bool:
    """Whether a network with that config has a learned embedding for each position, and so cannot read a longer text."""
    if values["model_type"] == "deberta-v2":
        return bool(values.get("position_biased_input", True))
    return values["model_type"] not in _RELATIVE_POSITIONS


def samples_for(num_frames: int, values: Mapping[str, Any]) -> int:
    """The samples of a waveform that it takes for so many frames of a network with that config."""
    needed = num_frames * int(values.get("squeeze_factor", 1))
    for kernel, stride in zip(reversed(values["conv_kernel"]), reversed(values["conv_stride"]), strict=True):
        needed = (needed - 1) * stride + kernel
    return needed


def _endings_of(task: TaskName, named: list[str]) -> list[str]:
    """Those endings that mean the task and that one of a config's ``architectures`` has."""
    return [ending for ending in TASKS[task].architectures if any(name.endswith(ending) for name in named)]


def _task_for(input_shape: InputShape) -> TaskName:
    if isinstance(input_shape, TokenShape):
        return first_task("text")
    return first_task("audio" if len(input_shape) == 1 else "image")


def _listed_for(task: TaskName, model_type: str, input_shape: InputShape) -> TaskName:
    """The task whose model types can read such inputs: the task itself, but for spectrograms, which are images of one channel."""
    if isinstance(input_shape, TokenShape):
        return task
    listed = task_of(model_type)
    is_audio = len(input_shape) == 1 or (listed is not None and TASKS[listed].input_kind == "audio")
    kind: InputKind = "audio" if is_audio else "image"
    return task if TASKS[task].input_kind == kind else first_task(kind)


def _decided(input_shape: InputShape, num_outputs: int) -> dict[str, list[Any]]:
    """The fields that the data decide, with the values that they may be given all the same."""
    match input_shape:
        case TokenShape():
            return {
                "num_labels": [num_outputs],
                "vocab_size": [input_shape.vocabulary],
                "pad_token_id": [input_shape.pad],
                "bos_token_id": [input_shape.start],
                "eos_token_id": [input_shape.end],
            }
        case (channels, height, width):
            sizes = [[height, width]] + ([height] if height == width else [])
            return {
                "num_channels": [channels],
                "image_size": sizes,
                "num_labels": [num_outputs],
                "max_length": [height],
                "num_mel_bins": [width],
            }
    return {"num_labels": [num_outputs]}


def _field_faults(
    architecture: TransformersNetwork, fields: dict[str, dict[str, Any]], *, decided: dict[str, list[Any]]
) -> Iterator[FieldError]:
    for name, value in architecture.config.items():
        pointer = f"/config/{name.replace('~', '~0').replace('/', '~1')}"
        if name in decided and (name in fields or name in _FROM_DATA):
            if value not in decided[name]:
                message = f"{name} is {json.dumps(decided[name][-1])} by the data, not {value!r:.80}: leave it out"
                yield FieldError(pointer=pointer, message=message)
        elif name not in fields:
            names = [field for field in fields if field not in decided]
            message = f"{architecture.model_type!r} has no such field{_meant(name, names)}; it has {', '.join(names)}"
            yield FieldError(pointer=pointer, message=message)
        elif message := _value_fault(name, value, fields[name]["types"]):
            yield FieldError(pointer=pointer, message=message)


def _token_faults(model_type: str, values: dict[str, Any], tokens: TokenShape) -> Iterator[FieldError]:
    """A network of text has a position for each token, and heads that share its width."""
    for name in POSITIONS:
        if not isinstance(values.get(name), int):
            continue
        needed = tokens.length + first_position(model_type, tokens.pad)
        if values[name] < needed:
            message = f"{name} is {values[name]}, and texts may have {tokens.length} tokens: make it {needed} or lower max_length"
            yield FieldError(pointer=f"/config/{name}", message=message)
    heads, groups = values.get("num_attention_heads"), values.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and (groups < 1 or heads % groups):
        message = f"num_key_value_heads {groups} does not divide num_attention_heads {heads}: give both"
        yield FieldError(pointer="/config/num_key_value_heads", message=message)
    yield from _head_faults(values)


def _frame_faults(values: dict[str, Any], *, num_samples: int) -> Iterator[FieldError]:
    """A network of waveforms needs a frame at least, and as many as it hides at once in training (SpecAugment)."""
    layers = {name: len(values[name]) for name in ("conv_dim", "conv_kernel", "conv_stride")}
    if len(set(layers.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in layers.items())
        yield FieldError(pointer="/config", message=f"each is for as many layers as the others, and here {told}: give all three")
        return
    if num_samples < samples_for(1, values):
        message = f"one frame takes {samples_for(1, values)} samples, and clips have {num_samples}: make conv_stride smaller"
        yield FieldError(pointer="/config/conv_stride", message=message)
        return
    hides = values.get("apply_spec_augment", True)
    if hides and values["mask_time_prob"] > 0 and num_samples < samples_for(values["mask_time_length"], values):
        message = (
            f"is {values['mask_time_length']} frames, more than clips of {num_samples} samples have: "
            "make it smaller, or set mask_time_prob to 0.0"
        )
        yield FieldError(pointer="/config/mask_time_length", message=message)


def _value_fault(name: str, value: Any, types: list[str]) -> str:
    if not any(_is_of(value, kind) for kind in types):
        return f"must be {' or '.join(types)}, not {value!r:.80}"
    if value == [] or (value is None and name == "depths"):
        return "must say something of at least one stage"
    activations = _table()["activations"]
    if (name.endswith("_act") or name in _ACTIVATIONS) and value is not None and value not in activations:
        return f"{value!r:.80} is no activation{_meant(str(value), activations)}; use one of {', '.join(activations)}"
    numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int | float)]
    counted = name.startswith(
        ("num_", "hidden_", "depth", "embed_", "embedding_", "patch_", "window_", "intermediate_", "masked_unit_", "n_")
    )
    is_share = name.endswith(("_prob", "_rate", "_pdrop"))
    for number in numbers:
        if isinstance(number, bool):
            continue
        if is_share and not 0 <= number < 1:
            return f"must be at least 0 and below 1, not {number}"
        if abs(number) > _LARGEST_INTEGER:
            return f"must be {_LARGEST_INTEGER:,} at most, not {number:,}"
        if name in ("num_hidden_layers", "depths", "depth") and number > _MOST_LAYERS:
            return f"must be {_MOST_LAYERS:,} layers at most, not {number:,}"
        least = 0 if name in _MAY_BE_ZERO else 1
        if counted and not is_share and isinstance(number, int) and number < least:
            return f"must be {least} or more, not {number}"
    return ""


def _is_of(value: Any, kind: str) -> bool:
    match kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "object":
            return isinstance(value, dict)
        case "any":
            return True
        case _:
            element = kind.removeprefix("array of ")
            return isinstance(value, list) and all(_is_of(item, element) for item in value)


def _shape_faults(
    model_type: str, fields: dict[str, dict[str, Any]], values: dict[str, Any], *, height: int, width: int
) -> Iterator[FieldError]:
    if model_type in _SQUARE_ONLY and height != width:
        yield FieldError(
            pointer="/model_type", message=f"{model_type!r} reads square images alone; these have {height}x{width} pixels"
        )
    if model_type in _PATCH_GRIDS:
        yield from _patch_faults(values["patch_size"], height=height, width=width)
    stage_faults = list(_stage_faults(fields, values))
    yield from stage_faults
    if not stage_faults:
        yield from _head_faults(values)
        yield from _resolution_faults(model_type, values, smaller_side=min(height, width))
        yield from _side_faults(model_type, values, height=height, width=width)


def _patch_faults(patch_size: Any, *, height: int, width: int) -> Iterator[FieldError]:
    sides = patch_size if isinstance(patch_size, list) else [patch_size, patch_size]
    if len(sides) == 2 and height % sides[0] == 0 and width % sides[1] == 0:
        return
    common = math.gcd(height, width)
    fitting = ", ".join(str(side) for side in range(1, common + 1) if common % side == 0)
    message = f"patch_size {patch_size} does not divide images of {height}x{width} pixels; use one of {fitting}"
    yield FieldError(pointer="/config/patch_size", message=message)


def _stage_faults(fields: dict[str, dict[str, Any]], values: dict[str, Any]) -> Iterator[FieldError]:
    """What is said of each stage must be said of the same number of stages."""
    usual, depths = fields.get("depths", {}).get("default"), values.get("depths")
    if not isinstance(usual, list) or not isinstance(depths, list):
        return
    for name, field in fields.items():
        value, default = values[name], field["default"]
        if isinstance(default, list) and len(default) == len(usual) and isinstance(value, list):
            stages = len(value)
        elif name in ("num_stages", "num_encoder_blocks"):
            stages = value
        else:
            continue
        if stages != len(depths):
            message = f"{name} is for {stages} stages and depths for {len(depths)}: give both, for the same number of stages"
            yield FieldError(pointer=f"/config/{name}", message=message)


def _head_faults(values: dict[str, Any]) -> Iterator[FieldError]:
    """Each attention head takes an equal part of the width."""
    for width_name, heads_name in (
        ("hidden_size", "num_attention_heads"),
        ("hidden_sizes", "num_attention_heads"),
        ("embed_dim", "num_heads"),
        ("n_embd", "n_head"),
        ("dim", "n_heads"),
    ):
        width, heads = values.get(width_name), values.get(heads_name)
        if width is None or heads is None:
            continue
        by_stage = heads if isinstance(heads, list) else [heads]
        if isinstance(width, int) and isinstance(heads, list):
            # The hierarchical networks double the width from stage to stage.
            width = [width * 2**stage for stage in range(len(heads))]
        widths = width if isinstance(width, list) else [width]
        if not isinstance(heads, list):
            by_stage = by_stage * len(widths)
        for one_width, one_heads in zip(widths, by_stage, strict=False):
            if one_heads < 1 or one_width % one_heads:
                message = f"{heads_name} {heads} does not divide {width_name} {values[width_name]} ({one_width} by {one_heads})"
                yield FieldError(pointer=f"/config/{heads_name}", message=message)
                break


def _resolution_faults(model_type: str, values: dict[str, Any], *, smaller_side: int) -> Iterator[FieldError]:
    """Networks that make the image smaller from stage to stage, and fail where nothing is left of it."""
    match model_type:
        case "swin" | "donut-swin" | "swinv2" | "convnext" | "convnextv2":
            patch = max(values["patch_size"]) if isinstance(values["patch_size"], list) else values["patch_size"]
            left = (smaller_side // patch) // 2 ** (len(values["depths"]) - 1)
            least = values.get("window_size", 1) if model_type != "swinv2" else 1
            if isinstance(least, list):
                least = max(least)
            pointers = "patch_size, depths" + (" or window_size" if least > 1 else "")
        case "pvt" | "pvt_v2" | "segformer":
            ratios = values.get("sr_ratios") or values["sequence_reduction_ratios"]
            left, least, side = 1, 1, smaller_side
            for stride, ratio in zip(values["strides"], ratios, strict=False):
                side //= max(stride, 1)
                if side < ratio:
                    left, least = side, ratio
                    break
            pointers = "strides or " + ("sr_ratios" if "sr_ratios" in values else "sequence_reduction_ratios")
        case _:
            return
    if left < least:
        message = (
            f"an image {smaller_side} pixels high or wide is down to {left} in a stage that needs {least}: "
            f"make {pointers} smaller, or take another model_type"
        )
        yield FieldError(pointer="/config", message=message)


def _side_faults(model_type: str, values: dict[str, Any], *, height: int, width: int) -> Iterator[FieldError]:
    """Networks that need sides of a certain size, or multiples of one."""
    least, multiples = 1, [1, 1]
    match model_type:
        case "efficientnet":
            least = 32
        case "mobilevitv2":
            least = values["output_stride"] + 1
        case "levit":
            multiples = [16, 16]  # its stem is four strides of 2, whatever its patch_size says
        case "hiera":
            multiples = [stride * unit for stride, unit in zip(values["patch_stride"], values["masked_unit_size"], strict=False)]
    if min(height, width) < least:
        message = f"{model_type!r} needs {least} pixels a side; these images have {height}x{width}: take another model_type"
        yield FieldError(pointer="/model_type", message=message)
    elif any(side % multiple for side, multiple in zip((height, width), multiples, strict=False)):
        wanted = " by ".join(map(str, multiples))
        message = (
            f"{model_type!r} needs multiples of {wanted} pixels; these images have {height}x{width}: take another model_type"
        )
        yield FieldError(pointer="/model_type", message=message)


def _meant(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f" (is {' or '.join(repr(other) for other in close)} meant?)" if close else ""


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    return table
