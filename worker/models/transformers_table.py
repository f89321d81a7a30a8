"""Writes ``service/spec/transformers_configs.json``: the library's configs, which the service reads without importing it.

Run ``python -m worker.models.transformers_table`` after an update of ``transformers``; a test compares the file with the
installed version.
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
_TEXT = {
    "albert", "bert", "deberta-v2", "distilbert", "electra", "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mobilebert",
    "modernbert", "mpnet", "opt", "qwen2", "qwen3", "roberta", "xlm-roberta",
}  # fmt: skip
_CAUSAL = {"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3"}
"""Model types whose logits are a linear map of the hidden states, neither scaled nor capped, as losses in chunks require."""
_AUDIO = {"audio-spectrogram-transformer", "data2vec-audio", "hubert", "sew", "unispeech-sat", "wav2vec2", "wavlm"}
_TOKEN_FIELDS = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}
_JSON_TYPES: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "boolean",
    str: "string",
    type(None): "null",
    dict: "object",
}


def make_table() -> dict[str, Any]:
    """Lists the model types by task, and the JSON types and defaults of each one's config fields."""
    by_task = {
        "image-classification": [
            model_type
            for model_type in sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
            if model_type not in _LEFT_OUT and "num_channels" in _fields(model_type)
        ],
        "text-classification": sorted(_TEXT),
        "audio-classification": sorted(_AUDIO),
        "causal-lm": sorted(_CAUSAL),
    }
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    model_types = {}
    for model_type in sorted(name for names in by_task.values() for name in names):
        fields = _fields(model_type)
        # Some configs inherit the fields of the vocabulary, others declare them.
        own = sorted((fields.keys() - inherited) | (fields.keys() & _TOKEN_FIELDS))
        model_types[model_type] = {name: _describe(fields[name]) for name in own}
    return {
        "transformers": transformers.__version__,
        "activations": sorted(ACT2FN),
        "tasks": by_task,
        "model_types": model_types,
    }


def _fields(model_type: str) -> dict[str, "dataclasses.Field[Any]"]:
    return {field.name: field for field in dataclasses.fields(CONFIG_MAPPING[model_type]) if not field.name.startswith("_")}


def _describe(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return {"types": sorted(_json_types(field.type)), "default": list(default) if isinstance(default, tuple) else default}


def _json_types(annotation: Any) -> Collection[str]:
    """Converts ``int | list[int] | None``, say, to ``integer``, ``array of integer``, ``null``."""
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
    """Writes the file, one field per line."""
    table = make_table()
    model_types = table.pop("model_types")
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in table.items()]
    described = [
        f"  {json.dumps(model_type)}: {{\n"
        + ",\n".join(f"   {json.dumps(name)}: {json.dumps(field)}" for name, field in fields.items())
        + "\n  }"
        for model_type, fields in model_types.items()
    ]
    lines.append(' "model_types": {\n' + ",\n".join(described) + "\n }")
    TABLE_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
