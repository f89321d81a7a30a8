"""A network as a folder: ``config.json``, ``model.safetensors``, the files of its preprocessing, ``labels.json``.

A network of ``transformers`` is saved in the library's own form, which ``from_pretrained`` (of
``AutoModelForImageClassification``, say) loads without this project; the project's own networks name their architecture in
``config.json``. Invariant: nothing is unpickled, nothing is fetched, no code of the folder is run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig
from transformers.utils import GENERATION_CONFIG_NAME, logging

from service.spec.architectures import Architecture
from service.spec.architectures import TransformersNetwork as TransformersArchitecture
from service.spec.data import EMBEDDING
from service.spec.problem_type import MULTI_LABEL, NUMBERS, WHY_NOT_MULTI_LABEL
from service.spec.shapes import InputShape
from service.spec.transformers_fit import CAUSAL, classifier_tasks, classifiers, task_of_config
from worker.data.preprocessing import Preprocessing
from worker.data.sound import SoundPreprocessing
from worker.data.text import TextPreprocessing
from worker.data.waveform import RawWaveform
from worker.models.build import Built, build_network, built_from, remember
from worker.models.embedding_network import EmbeddingNetwork
from worker.models.encoder_files import read_encoder_files, write_encoder_files
from worker.models.errors import UnreadableNetwork
from worker.models.language_network import LanguageNetwork
from worker.models.preprocessing_files import read_own_preprocessing, read_preprocessing, write_preprocessing
from worker.models.text_files import has_token_types
from worker.models.transformers_network import LIBRARY_ERRORS, TransformersNetwork, auto_class, wrap
from worker.models.weight_names import common_prefix, unwrapped_state
from worker.targets import Target, Targets

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
LABELS_FILE = "labels.json"
OWN_MODEL_TYPE = "stillhouse"

_ARCHITECTURE: TypeAdapter[Any] = TypeAdapter(Architecture)
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# Fields of an uploaded config that would load code, or load weights in another form.
_REFUSED_FIELDS = {
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
}


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its preprocessing and the meaning of its outputs."""

    network: nn.Module
    preprocessing: Preprocessing
    targets: Targets
    input_shape: InputShape

    @property
    def classes(self) -> list[str]:
        """Name of each output."""
        return self.targets.classes


def save_network(network: nn.Module, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
    """Writes a network of :func:`build_network` or :func:`load_network` into ``folder``, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    built = built_from(network)
    if isinstance(network, LanguageNetwork | EmbeddingNetwork):
        with _no_progress_bars():
            network.model.save_pretrained(folder)
        if isinstance(network, EmbeddingNetwork):
            prompt = preprocessing.prompt if isinstance(preprocessing, TextPreprocessing) else ""
            write_encoder_files(folder, network, prompt=prompt)
    elif isinstance(network, TransformersNetwork):
        names = dict(enumerate(targets.classes))
        network.model.config.id2label = names
        network.model.config.label2id = {name: index for index, name in names.items()}
        if all(target.classes is None for target in targets):
            # Without it, the library's pipelines put a single number through a sigmoid, and several through a softmax.
            network.model.config.problem_type = NUMBERS
        with _no_progress_bars():
            network.model.save_pretrained(folder)
    else:
        document = {
            "model_type": OWN_MODEL_TYPE,
            "architecture": built.architecture.model_dump(),
            "input_shape": built.input_shape,
            "num_outputs": targets.width,
        }
        write_json(folder / CONFIG_FILE, document)
        state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    has_types = bool(getattr(network, "has_token_types", False))
    write_preprocessing(folder, preprocessing, input_shape=built.input_shape, has_token_types=has_types)
    if len(targets):
        write_json(folder / LABELS_FILE, _labels_document(targets))


def _labels_document(targets: Targets) -> Any:
    """A list of class names for a classification; else an object of each target's class names, null for a regression target."""
    if targets.is_classification:
        return targets.classes
    return {target.name: None if target.classes is None else list(target.classes) for target in targets}


def load_network(folder: Path) -> LoadedNetwork:
    """Reads a folder of :func:`save_network`, or any classifier's ``from_pretrained`` folder with safetensors weights.

    The network is on the CPU, in float32, in ``eval()``.

    Raises:
        UnreadableNetwork: a file is missing, broken, or of a kind that is never loaded.
        UnfitArchitecture: the network that the files describe cannot be built.
    """
    if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
        read_encoder_files(folder)  # which says so if the encoder is elsewhere
    _refuse_unsafe_files(folder)
    config = _read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise UnreadableNetwork(f"{CONFIG_FILE} holds {type(config).__name__}, not an object")
    loaded = _load_own(folder, config) if config.get("model_type") == OWN_MODEL_TYPE else _load_transformers(folder, config)
    loaded.network.eval()
    return loaded


def stored_targets(folder: Path) -> Targets:
    """The targets of a classifier's folder, read without its weights.

    Raises:
        UnreadableNetwork: a file is missing or broken.
    """
    config = _read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise UnreadableNetwork(f"{CONFIG_FILE} holds {type(config).__name__}, not an object")
    if (folder / LABELS_FILE).is_file():
        return _read_targets(folder)
    try:
        library_config = AutoConfig.for_model(**config)
        return Targets.of_classes([str(library_config.id2label[index]) for index in range(library_config.num_labels)])
    except LIBRARY_ERRORS as error:
        raise UnreadableNetwork(f"{CONFIG_FILE} describes no network: {str(error).strip()[:500]}") from error


def stored_parameters(folder: Path) -> int:
    """Number of weights in a folder, read from the headers alone; 0 if there are none or they cannot be read."""
    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError):
            return 0
    return count


def _load_own(folder: Path, config: dict[str, Any]) -> LoadedNetwork:
    try:
        architecture = _ARCHITECTURE.validate_python(config["architecture"])
        channels, height, width = map(int, config["input_shape"])
        num_outputs = int(config["num_outputs"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UnreadableNetwork(f"{CONFIG_FILE} does not describe a network of this project: {error}") from error
    input_shape = (channels, height, width)
    targets = _read_targets(folder, num_outputs=num_outputs)
    network = build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)
    try:
        state = unwrapped_state(folder, shards=[WEIGHTS_FILE])
        network.load_state_dict(load_file(folder / WEIGHTS_FILE) if state is None else state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UnreadableNetwork(f"{WEIGHTS_FILE} does not hold the weights of {architecture.name}: {str(error)[:500]}") from error
    return LoadedNetwork(network, read_own_preprocessing(folder, input_shape=input_shape), targets, input_shape)


def _load_transformers(folder: Path, document: dict[str, Any]) -> LoadedNetwork:
    model_type = document.get("model_type")
    task = task_of_config(document)
    if task is None or not isinstance(model_type, str):
        known = "; ".join(f"{kind}: {', '.join(classifiers(kind))}" for kind in classifier_tasks())
        raise UnreadableNetwork(
            f"{CONFIG_FILE}: model_type {model_type!r} is no network that can be loaded here; "
            f"those are {known}, and {OWN_MODEL_TYPE!r} for the project's own"
        )
    if refused := sorted(_REFUSED_FIELDS & document.keys()):
        raise UnreadableNetwork(
            f"{CONFIG_FILE} may not have {', '.join(refused)}: only the library's own code and plain weights are loaded"
        )
    if document.get("problem_type") == MULTI_LABEL and task not in (CAUSAL, EMBEDDING):
        raise UnreadableNetwork(f"{CONFIG_FILE}: {WHY_NOT_MULTI_LABEL}")
    try:
        config = AutoConfig.for_model(**document)
        with _no_progress_bars(), _plain_folder(folder) as plain:
            model, info = auto_class(task).from_pretrained(
                plain,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
            )
    # As in building, the library has no error of its own for an invalid config or invalid weights.
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
        raise UnreadableNetwork(f"{CONFIG_FILE} and {WEIGHTS_FILE} make no {task} network: {reason}") from error
    # ``ignore_mismatched_sizes`` lists the tensors, where the library would raise with the advice to ignore them.
    if wrong := sorted(info["mismatched_keys"]):
        name, there, needed = wrong[0]
        raise UnreadableNetwork(
            f"{WEIGHTS_FILE}: {name} is {tuple(there)}, and {CONFIG_FILE} makes a network where it is {tuple(needed)}"
            f"{f' (and {len(wrong) - 1} more tensors differ)' if len(wrong) > 1 else ''}: save config and weights of one network"
        )
    # An encoder's pooler belongs to a classifier; embeddings do not use it.
    needed_keys = [name for name in info["missing_keys"] if not (task == EMBEDDING and name.startswith("pooler."))]
    if missing := sorted(needed_keys):
        prefix = common_prefix(info["unexpected_keys"], needed=missing)
        remedy = "save the whole network with model.save_pretrained(folder)"
        if prefix is not None:
            remedy = f"it has them behind {prefix!r}; save that part of it, as network.{prefix}save_pretrained(folder)"
        raise UnreadableNetwork(f"{WEIGHTS_FILE} lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}: {remedy}")
    preprocessing, input_shape = read_preprocessing(folder, model.config, task=task)
    network = wrap(
        model,
        task=task,
        masks_waveforms=_masks_waveforms(preprocessing),
        has_token_types=isinstance(preprocessing, TextPreprocessing) and has_token_types(preprocessing.tokenizer, model_type),
    )
    remember(
        network, Built(architecture=TransformersArchitecture(name="transformers", model_type=model_type), input_shape=input_shape)
    )
    if isinstance(network, EmbeddingNetwork):
        files = read_encoder_files(folder)
        network.pooling, network.has_unit_length = files.pooling, files.has_unit_length
        return LoadedNetwork(network, preprocessing, Targets((), are_embeddings=True), input_shape)
    if task == CAUSAL:
        return LoadedNetwork(network, preprocessing, Targets((), are_tokens=True), input_shape)
    has_labels = (folder / LABELS_FILE).is_file()
    targets = _read_targets(folder, num_outputs=config.num_labels) if has_labels else _targets_of_config(config)
    return LoadedNetwork(network, preprocessing, targets, input_shape)


def _targets_of_config(config: Any) -> Targets:
    """What the outputs mean to the library: one is a number, and so is each of several if ``problem_type`` says so."""
    named = [str(config.id2label[index]) for index in range(config.num_labels)]
    if config.problem_type == NUMBERS or len(named) == 1:
        return Targets(tuple(Target(name, None) for name in named))
    return Targets.of_classes(named)


@contextmanager
def _plain_folder(folder: Path) -> Iterator[Path]:
    """The folder; or, where a wrapper of the network is in the names of its weights, a copy under the plain names."""
    shards = [WEIGHTS_FILE] if (folder / WEIGHTS_FILE).is_file() else _shards(folder)
    state = unwrapped_state(folder, shards=shards)
    if state is None:
        yield folder
        return
    # A copy, as the library takes tensors from a folder alone where the class is an automatic one.
    with TemporaryDirectory() as made:
        save_file(state, Path(made) / WEIGHTS_FILE, metadata={"format": "pt"})
        if (folder / GENERATION_CONFIG_NAME).is_file():
            copyfile(folder / GENERATION_CONFIG_NAME, Path(made) / GENERATION_CONFIG_NAME)
        yield Path(made)


def _masks_waveforms(preprocessing: Preprocessing) -> bool:
    features = preprocessing.features if isinstance(preprocessing, SoundPreprocessing) else None
    return isinstance(features, RawWaveform) and features.masked


def _refuse_unsafe_files(folder: Path) -> None:
    if not folder.is_dir():
        raise UnreadableNetwork(f"{folder.name} is not a folder")
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        raise UnreadableNetwork(
            "adapter_config.json: merge the adapter into its network with peft's merge_and_unload(), then save the whole network"
        )
    if WEIGHTS_FILE not in names and f"{WEIGHTS_FILE}.index.json" not in names:
        pickles = sorted(name for name in names if Path(name).suffix in _PICKLES)
        found = f"; {', '.join(pickles)} is a pickle, which can run code and is never loaded" if pickles else ""
        raise UnreadableNetwork(f"{WEIGHTS_FILE} is missing{found}: write it with model.save_pretrained(folder)")
    for shard in _shards(folder):
        if Path(shard).name != shard or not shard.endswith(".safetensors") or shard not in names:
            raise UnreadableNetwork(f"{WEIGHTS_FILE}.index.json names {shard!r}, which is no safetensors file of the folder")


def _shards(folder: Path) -> Iterator[str]:
    path = folder / f"{WEIGHTS_FILE}.index.json"
    if not path.is_file():
        return
    index = _read_json(path)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise UnreadableNetwork(f"{path.name} has no weight_map")
    yield from sorted(set(weights.values()))


def _read_targets(folder: Path, *, num_outputs: int | None = None) -> Targets:
    match _read_json(folder / LABELS_FILE):
        case list() as names if all(isinstance(name, str) for name in names):
            targets = Targets.of_classes(names)
        case dict() as by_target if all(_are_names(names) for names in by_target.values()):
            found = [Target(name, None if names is None else tuple(names)) for name, names in by_target.items()]
            targets = Targets(tuple(found))
        case _:
            targets = Targets(())
    if num_outputs is not None and targets.width != num_outputs:
        raise UnreadableNetwork(f"{LABELS_FILE} does not name {num_outputs} outputs: a list of class names, or one by target")
    return targets


def _are_names(names: Any) -> bool:
    return names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Silences the library's progress bar for each file, which is only noise in a job's log."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableNetwork(f"{path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableNetwork(f"{path.name} cannot be read: {error}") from error


def write_json(path: Path, document: Any) -> None:
    """Writes an indented JSON file. Raises ValueError for NaN and infinity, which JSON lacks."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
