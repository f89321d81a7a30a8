"""Checks of an uploaded ``from_pretrained`` folder: config, classes, preprocessor or tokenizer, complete safetensors weights.

Torch is not used; the worker, which builds the network, makes the final check. Nothing of the folder is ever unpickled or run.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.errors import InvalidFile
from service.gguf_header import SUFFIX, find_gguf, read_gguf_header
from service.spec.architectures import Architecture
from service.spec.problem_type import MULTI_LABEL, NUMBERS, ONE_LABEL, ProblemType
from service.spec.repeated_keys import repeated_in_json
from service.spec.tasks import TASKS, InputKind, TaskName, first_task
from service.spec.transformers_fit import classifier_tasks, classifiers, config_fields, task_of_config
from service.weights import read_header

OWN_MODEL_TYPE = "stillhouse"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_CONFIG, _LABELS, _PREPROCESSOR, _TOKENIZER = "config.json", "labels.json", "preprocessor_config.json", "tokenizer.json"
_MODULES = "modules.json"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".h5", ".msgpack"}
_WHY_NO_PICKLES = (
    "such files can run code when they are read, and are never loaded. Save the model again with "
    "model.save_pretrained(folder, safe_serialization=True), or its state with safetensors.torch.save_file"
)
_WHY_ONLY_LEFT_OUT = (
    "such files can run code when they are read, and are never loaded. The folder's weights are safetensors already: leave these "
    "files out of the archive"
)
_ADAPTER = "adapter_config.json"
_WHY_NO_GGUF = "the folder's weights are safetensors already: leave the GGUF file out"
_HOW_TO_PACK_GGUF = "send a zip or tar of a folder that holds it alone, such as with zip model.zip {filename}"
_HOW_TO_PACK = f"send a zip or tar of the folder with {_WEIGHTS}, {_CONFIG} and {_PREPROCESSOR} (of a text network: {_TOKENIZER})"
_READERS: dict[InputKind, tuple[str, str]] = {
    "image": (_PREPROCESSOR, "image processor"),
    "text": (_TOKENIZER, "fast tokenizer"),
    "audio": (_PREPROCESSOR, "feature extractor"),
}
"""By what a network reads, the file that says how, and what the library calls its object."""
_HARMLESS = {".safetensors", ".json", ".txt", ".md", ".jinja", ""}
_HEADS = ("Classification", "ClassificationWithTeacher")
"""How the library's classes end whose outputs are classes."""
_MAX_JSON_BYTES = 64 * 2**20
_MAX_SIDE = 16_384
_MAX_CLASSES = 1_000_000
# Fields that would make transformers fetch code or weights, or load the weights in another form.
_REFUSED_FIELDS = {"auto_map", "quantization_config", "attn_implementation", "_attn_implementation"}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that JSON can express and PostgreSQL cannot store: NUL and lone surrogates."""
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
"""The end of the name of one file of weights in several."""
_ARCHITECTURE: TypeAdapter[Any] = TypeAdapter(Architecture)


@dataclass(frozen=True)
class FolderInfo:
    """What the files say about a network, without loading it."""

    task: TaskName
    """The task that it is for."""
    classes: list[str]
    """The names of its outputs; empty for a causal language model, an encoder of embeddings, and a body without a head."""
    input_shape: list[int]
    """[channels, height, width] of its images; [1, frames, mel bands] of spectrograms; empty for texts and waveforms."""
    problem_type: ProblemType | None = None
    """What its outputs mean; None of one without classes, and of several targets."""


def inspect_folder(folder: Path, files: Sequence[Path]) -> FolderInfo:
    """Checks a folder that contains ``files``, given by their relative paths.

    Raises:
        InvalidFile: the network could not be loaded; the text says why.
    """
    names = {path.as_posix() for path in files}
    if (gguf := refuse_unsafe(files)) is not None:
        task = next(task for task, info in TASKS.items() if info.gguf_architectures)
        read_gguf_header(folder / gguf, architectures=TASKS[task].gguf_architectures)
        return FolderInfo(task=task, classes=[], input_shape=[])
    if _CONFIG not in names and _MODULES in names:
        raise InvalidFile(
            f"{_CONFIG} is not in the folder itself. Early versions of sentence-transformers put the encoder into a folder of "
            "its own: load it with SentenceTransformer and save it again with a newer one, which puts it into the folder itself"
        )
    _need(_CONFIG, names, of="model")
    config = _object(folder / _CONFIG)
    info = _own(folder, config, names) if config.get("model_type") == OWN_MODEL_TYPE else _transformers(folder, config, names)
    for shard in _shards(folder, names):
        read_header(folder / shard, filename=shard)
    return replace(info, problem_type=_problem_type(folder, config, names)) if info.classes else info


def refuse_unsafe(files: Sequence[Path]) -> Path | None:
    """Raises InvalidFile if no folder of such names can be used; returns the GGUF file that is its network, if there is one."""
    names = {path.as_posix() for path in files}
    _refuse_adapter(names)
    _refuse_nested(names)
    gguf = find_gguf(Path(), files)
    _refuse_code([path for path in files if gguf is None or path.name != gguf.name])
    return gguf


def _need(file: str, names: set[str], *, of: str) -> None:
    if file not in names:
        raise InvalidFile(f"{file} is missing: save the {of} into the folder with its save_pretrained(folder)")


def refuse_loose_weights(filename: str) -> None:
    """Raises InvalidFile if the suffix is that of a single file of weights; the text says how to pack the whole folder."""
    suffix = Path(filename).suffix.lower()
    if suffix == SUFFIX:
        raise InvalidFile(f"{filename!r} is to be in a folder: {_HOW_TO_PACK_GGUF.format(filename=filename)}")
    if suffix in _PICKLES:
        raise InvalidFile(f"{filename!r}: {_WHY_NO_PICKLES}, and {_HOW_TO_PACK}")
    if suffix == ".safetensors":
        raise InvalidFile(f"{filename!r} holds the weights alone, which do not say what network they are of: {_HOW_TO_PACK}")


def _refuse_adapter(names: set[str]) -> None:
    if any(PurePosixPath(name).name == _ADAPTER for name in names):
        raise InvalidFile(
            f"{_ADAPTER}: these are an adapter's weights, without the network that it changes: merge the adapter into it with "
            "peft's merge_and_unload(), save the whole network with save_pretrained(folder), and send that folder"
        )


def _refuse_nested(names: set[str]) -> None:
    """Refuses a folder whose network is deeper in it; the encoders of sentence-transformers may be, in one that they name."""
    folders = sorted(str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == _CONFIG)
    inner = [folder for folder in folders if f"{folder}/{_WEIGHTS}" in names or f"{folder}/{_INDEX}" in names]
    if _CONFIG not in names and inner:
        others = f"; there are {len(inner)} such folders" if len(inner) > 1 else ""
        raise InvalidFile(
            f"{_CONFIG} is in the folder {inner[0]!r}, beside other files: pack that folder alone, such as with "
            f"zip -r model.zip {inner[0]}{others}"
        )


def _refuse_code(files: Sequence[Path]) -> None:
    pickles = [path.as_posix() for path in files if path.suffix.lower() in _PICKLES]
    if pickles:
        is_whole = any(path.suffix.lower() == ".safetensors" for path in files)
        remedy = _WHY_ONLY_LEFT_OUT if is_whole else f"{_WHY_NO_PICKLES}, and leave the old file out"
        raise InvalidFile(f"{', '.join(pickles[:5])}: {remedy}")
    if gguf := [path.as_posix() for path in files if path.suffix.lower() == SUFFIX]:
        raise InvalidFile(f"{', '.join(gguf[:5])}: {_WHY_NO_GGUF}")
    others = [path.as_posix() for path in files if path.suffix.lower() not in _HARMLESS]
    if others:
        allowed = ", ".join(sorted(suffix for suffix in _HARMLESS if suffix))
        raise InvalidFile(f"{', '.join(others[:5])}: a model's folder has {allowed} files alone; leave these out")


def _own(folder: Path, config: dict[str, Any], names: set[str]) -> FolderInfo:
    _need(_PREPROCESSOR, names, of="image processor")
    try:
        _ARCHITECTURE.validate_python(config.get("architecture"))
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(map(str, ("architecture", *first["loc"])))
        raise InvalidFile(f"{_CONFIG}: {place}: {first['msg']}") from error
    match config:
        case {"input_shape": [int(channels), int(height), int(width)], "num_outputs": int(num_outputs)}:
            shape = _checked_shape(channels, height, width)
        case _:
            raise InvalidFile(f"{_CONFIG} needs input_shape [channels, height, width] and num_outputs")
    if _LABELS not in names:
        raise InvalidFile(f"{_LABELS} is missing: a list of the {num_outputs} class names")
    classes = _output_names(_read(folder / _LABELS))
    if len(classes) != num_outputs:
        raise InvalidFile(f"{_LABELS} has {len(classes)} names and {_CONFIG} {num_outputs} outputs; they must agree")
    is_of_sound = "feature_extractor_type" in _object(folder / _PREPROCESSOR)
    return FolderInfo(task=first_task("audio" if is_of_sound else "image"), classes=classes, input_shape=shape)


def _transformers(folder: Path, config: dict[str, Any], names: set[str]) -> FolderInfo:
    model_type = config.get("model_type")
    task = task_of_config(config)
    if task is None:
        known = "; ".join(f"for {name} {', '.join(classifiers(name))}" for name in classifier_tasks())
        raise InvalidFile(f"{_CONFIG}: model_type {model_type!r:.80} is no network that can be loaded; those are {known}")
    kind = TASKS[task].input_kind
    file, of = _READERS[kind]
    _need(file, names, of=of)
    refused = sorted(_REFUSED_FIELDS & config.keys())
    if refused:
        raise InvalidFile(
            f"{_CONFIG} may not have {', '.join(refused)}: only the library's own code and plain weights are loaded"
        )
    if not TASKS[task].targets:
        return FolderInfo(task=task, classes=[], input_shape=[])
    by_index = config.get("id2label")
    if isinstance(by_index, dict) and by_index:
        classes = _names([by_index.get(str(index)) for index in range(len(by_index))], f"{_CONFIG} id2label")
    elif _LABELS in names:
        classes = _output_names(_read(folder / _LABELS))
    elif _has_head(config):
        raise InvalidFile(f"neither {_CONFIG} (id2label) nor {_LABELS} names the classes")
    else:
        classes = []
    if kind == "text":
        return FolderInfo(task=task, classes=classes, input_shape=[])
    if kind == "audio":
        if model_type != "audio-spectrogram-transformer":
            return FolderInfo(task=task, classes=classes, input_shape=[])
        usual = config_fields(model_type)
        frames, mels = (config.get(name, usual[name]["default"]) for name in ("max_length", "num_mel_bins"))
        return FolderInfo(task=task, classes=classes, input_shape=_checked_shape(1, frames, mels))
    channels = config.get("num_channels", 3)
    height, width = _image_size(_object(folder / _PREPROCESSOR), config)
    return FolderInfo(task=task, classes=classes, input_shape=_checked_shape(channels, height, width))


def _problem_type(folder: Path, config: dict[str, Any], names: set[str]) -> ProblemType | None:
    """By the library's rules where there is no file of labels, which has the last word."""
    if _LABELS in names:
        match _read(folder / _LABELS):
            case list():
                return ONE_LABEL
            case dict() as of_targets if len(of_targets) == 1:
                (found,) = of_targets.values()
                return NUMBERS if found is None else MULTI_LABEL if isinstance(found, dict) else ONE_LABEL
            case _:
                return None
    match config.get("problem_type"):
        case "multi_label_classification":
            return MULTI_LABEL
        case "regression":
            return NUMBERS
        case _:
            return NUMBERS if len(config.get("id2label") or ()) == 1 else ONE_LABEL


def _has_head(config: dict[str, Any]) -> bool:
    """Whether a network says that it is more than a body, to which a job gives the outputs that it needs."""
    named = config.get("architectures")
    return not isinstance(named, list) or any(str(name).endswith(_HEADS) for name in named)


def _image_size(processor: dict[str, Any], config: dict[str, Any]) -> tuple[Any, Any]:
    # The preprocessor's size comes first: the config of a convolutional network repeats its class's default.
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    for size in (cropped, processor.get("size"), config.get("image_size")):
        match size:
            case {"height": height, "width": width}:
                return height, width
            case {"shortest_edge": side} | int(side):
                return side, side
            case [height, width]:
                return height, width
    raise InvalidFile(f"neither {_PREPROCESSOR} (size) nor {_CONFIG} (image_size) says how large the images are")


def _checked_shape(*shape: Any) -> list[int]:
    if not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in shape):
        raise InvalidFile(
            f"channels, height and width of the images are {shape}; each must be a whole number from 1 to {_MAX_SIDE}"
        )
    return list(shape)


def _shards(folder: Path, names: set[str]) -> list[str]:
    if _WEIGHTS in names:
        return [_WEIGHTS]
    if _INDEX not in names:
        raise InvalidFile(_what_is_there_instead(names))
    placed = _object(folder / _INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise InvalidFile(f"{_INDEX} has no weight_map")
    shards = sorted({str(name) for name in placed.values()})
    missing = [name for name in shards if name not in names or not name.endswith(".safetensors")]
    if missing:
        raise InvalidFile(
            f"{_INDEX} names {', '.join(missing[:5])!r:.200}, which is no safetensors file of the folder: pack all {len(shards)}"
        )
    return shards


def _what_is_there_instead(names: set[str]) -> str:
    """Says of a folder without weights of the usual name which ones it has, and what to do."""
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if any(_SHARD.search(name) for name in found):
        return (
            f"{_INDEX} is missing, which says which of {', '.join(found[:3])}{' …' if found[3:] else ''} holds which weights: "
            "pack it beside them, as model.save_pretrained(folder) has written it"
        )
    if len(found) == 1:
        return f"{_WEIGHTS} is missing, and there is {found[0]}: if these are the network's weights, call it {_WEIGHTS}"
    return f"{_WEIGHTS} is missing: write it with model.save_pretrained(folder)"


def _output_names(found: Any) -> list[str]:
    """The names of all outputs, from a list of class names, or from the lists by target, null for a number."""
    if not isinstance(found, dict):
        return _names(found, _LABELS)
    named: list[str] = []
    for target, classes in found.items():
        if isinstance(classes, dict) and classes.keys() == {"any_of"}:
            classes = classes["any_of"]
            if len(found) == 1:
                return _names(classes, f"{_LABELS} {target!r:.80}")
        of_target = [None] if classes is None else _names(classes, f"{_LABELS} {target!r:.80}")
        named += [target if name is None else f"{target}: {name}" for name in of_target]
    return _names(named, _LABELS)


def _names(found: Any, place: str) -> list[str]:
    if not isinstance(found, list) or not 1 <= len(found) <= _MAX_CLASSES:
        raise InvalidFile(f"{place} is not a list of class names")
    if not all(isinstance(name, str) and name and not _UNSTORABLE.search(name) for name in found):
        raise InvalidFile(f"{place} does not name every class from 0 on")
    if len(set(found)) != len(found):
        raise InvalidFile(f"{place} names a class twice")
    return found


def _object(path: Path) -> dict[str, Any]:
    found = _read(path)
    if not isinstance(found, dict):
        raise InvalidFile(f"{path.name} is not a JSON object")
    return found


def _read(path: Path) -> Any:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise InvalidFile(f"{path.name} is larger than {_MAX_JSON_BYTES} bytes")
    text = path.read_bytes()
    try:
        found = json.loads(text)
        repeated = repeated_in_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path.name} is not JSON: {error}") from error
    if repeated:
        raise InvalidFile(f"{path.name}: {repeated[0].pointer}: {repeated[0].message}")
    return found
