"""Writes ``service/spec/transformers_configs.json``: what the service knows of the library's configs without importing it.

``python -m worker.models.transformers_table`` after a new version of ``transformers``; a test compares the file with the
installed one.
"""

import dataclasses
import json
import types
from collections.abc import Collection
from typing import Any, Union, get_args, get_origin

import transformers
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from service.spec.transformers_fit import TABLE_FILE

# dinat needs natten, a library that is built for one version of torch and CUDA; hgnet_v2 states its channels twice.
_LEFT_OUT = {"dinat", "hgnet_v2"}
_JSON_TYPES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    type(None): "null",
    dict: "object",
}


def make_table() -> dict[str, Any]:
    """Every image classifier that is told its number of channels, with its config's fields: their JSON types and defaults."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    model_types = {}
    for model_type in sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES):
        if model_type in _LEFT_OUT:
            continue
        fields = {field.name: field for field in dataclasses.fields(CONFIG_MAPPING[model_type]) if not field.name.startswith("_")}
        if "num_channels" in fields:
            own = sorted(fields.keys() - inherited)
            model_types[model_type] = {name: _describe(fields[name]) for name in own}
    return {"transformers": transformers.__version__, "activations": sorted(ACT2FN), "model_types": model_types}


def _describe(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return {"types": sorted(_json_types(field.type)), "default": list(default) if isinstance(default, tuple) else default}


def _json_types(annotation: Any) -> Collection[str]:
    """``int | list[int] | None`` as ``integer``, ``array of integer``, ``null``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return {name for argument in arguments for name in _json_types(argument)}
    if origin in (list, tuple) or annotation in (list, tuple):
        elements = {name for argument in arguments if argument is not ... for name in _json_types(argument)}
        return {f"array of {element}" for element in elements} or {"array of any"}
    if annotation in _JSON_TYPES:
        return {_JSON_TYPES[annotation]}
    return {_JSON_TYPES.get(origin, "any")}


def main() -> None:
    """Writes the file."""
    TABLE_FILE.write_text(json.dumps(make_table(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
