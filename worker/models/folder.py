"""A network as a folder: ``config.json``, ``model.safetensors``, the files of its preprocessing, ``labels.json``.

A network of ``transformers`` is saved in the library's own form, which ``from_pretrained`` (of
``AutoModelForImageClassification``, say) loads without this project; the project's own networks name their architecture in
``config.json``. Invariant: nothing is unpickled, nothing is fetched, no code of the folder is run.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig
from transformers.utils import GENERATION_CONFIG_NAME

from service.spec.architectures import Architecture
from service.spec.architectures import TransformersNetwork as TransformersArchitecture
from service.spec.tasks import TaskName
from service.spec.transformers_fit import classifier_tasks, classifiers, task_of_config
from worker.data.preprocessing import Preprocessing
from worker.models.build import Built, build_network, built_from, remember
from worker.models.build_transformers import LIBRARY_ERRORS
from worker.models.encoder_files import read_encoder_files
from worker.models.errors import UnreadableNetwork
from worker.models.labels_file import LABELS_FILE, read_json, read_labels, write_json, write_labels
from worker.models.loading import DTYPES, FLOAT32, Loading, StoredWeights, hold
from worker.models.network_kind import LoadedNetwork, NetworkKind
from worker.models.weight_names import common_prefix, unwrapped_state
from worker.models.without_progress import no_load_report, no_progress_bars
from worker.targets import Targets

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
OWN_MODEL_TYPE = "stillhouse"

_LAYER = re.compile(r"\.\d+\.")
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


def save_network(network: nn.Module, folder: Path, *, preprocessing: Preprocessing, targets: Targets) -> None:
    """Writes a network that was built or loaded here into ``folder``, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    built = built_from(network)
    if built.kind is not None:
        built.kind.write(network, folder, preprocessing=preprocessing, targets=targets)
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
    preprocessing.save(folder, input_shape=built.input_shape, has_token_types=has_types)
    write_labels(folder, targets)


def read_network(folder: Path, kinds: Mapping[TaskName, NetworkKind], *, loading: Loading = FLOAT32) -> LoadedNetwork:
    """Reads a folder of :func:`save_network`, or any ``from_pretrained`` folder of one of the ``kinds`` with safetensors weights.

    The network is as ``loading`` says, by default on the CPU in float32, and in ``eval()``.

    Raises:
        UnreadableNetwork: a file is missing, broken, or of a kind that is never loaded.
        UnfitArchitecture: the network that the files describe cannot be built.
    """
    config = read_config(folder)
    is_own = config.get("model_type") == OWN_MODEL_TYPE
    loaded = _load_own(folder, config, kinds) if is_own else _load_transformers(folder, config, kinds, loading)
    hold(loaded.network, loading).eval()
    return loaded


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the ``config.json`` of a folder that holds nothing but plain weights and the library's own kinds of files.

    Raises:
        UnreadableNetwork: a file is missing, broken, or of a kind that is never loaded.
    """
    if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
        read_encoder_files(folder)  # which says so if the encoder is elsewhere
    _refuse_unsafe_files(folder)
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise UnreadableNetwork(f"{CONFIG_FILE} holds {type(config).__name__}, not an object")
    if config.get("model_type") != OWN_MODEL_TYPE and (refused := sorted(_REFUSED_FIELDS & config.keys())):
        raise UnreadableNetwork(
            f"{CONFIG_FILE} may not have {', '.join(refused)}: only the library's own code and plain weights are loaded"
        )
    return config


def stored_targets(folder: Path) -> Targets:
    """The targets of a classifier's folder, read without its weights.

    Raises:
        UnreadableNetwork: a file is missing or broken.
    """
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise UnreadableNetwork(f"{CONFIG_FILE} holds {type(config).__name__}, not an object")
    if (folder / LABELS_FILE).is_file():
        return read_labels(folder)
    try:
        described = AutoConfig.for_model(**config)
        return Targets.of_classes([str(described.id2label[index]) for index in range(described.num_labels)])
    except LIBRARY_ERRORS as error:
        raise UnreadableNetwork(f"{CONFIG_FILE} describes no network: {str(error).strip()[:500]}") from error


def _load_own(folder: Path, config: dict[str, Any], kinds: Mapping[TaskName, NetworkKind]) -> LoadedNetwork:
    architecture, input_shape, num_outputs = read_own_config(config)
    targets = read_labels(folder, num_outputs=num_outputs)
    network = build_network(architecture, input_shape=input_shape, num_outputs=num_outputs)
    load_own_weights(network, folder)
    kind = next(kind for kind in kinds.values() if kind.owns(folder))
    reads = kind.read_own_preprocessing(folder, input_shape=input_shape)
    return LoadedNetwork(network, reads, targets, input_shape, kind)


def read_own_config(config: dict[str, Any]) -> tuple[Architecture, tuple[int, int, int], int]:
    """The architecture, input shape and number of outputs of one of the project's own networks. Raises UnreadableNetwork."""
    try:
        architecture = _ARCHITECTURE.validate_python(config["architecture"])
        channels, height, width = map(int, config["input_shape"])
        num_outputs = int(config["num_outputs"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UnreadableNetwork(f"{CONFIG_FILE} does not describe a network of this project: {error}") from error
    if architecture.name == "transformers":
        raise UnreadableNetwork(f"{CONFIG_FILE}: a network of transformers has its own model_type, not {OWN_MODEL_TYPE!r}")
    return architecture, (channels, height, width), num_outputs


def load_own_weights(network: nn.Module, folder: Path, *, without: Collection[str] = ()) -> None:
    """Loads the weights of one of the project's own networks, ``without`` some. Raises UnreadableNetwork."""
    try:
        state = unwrapped_state(folder, shards=[WEIGHTS_FILE]) or load_file(folder / WEIGHTS_FILE)
        kept = network.state_dict()
        network.load_state_dict(state | {name: kept[name] for name in without})
    except (OSError, SafetensorError, RuntimeError) as error:
        name = built_from(network).architecture.name
        raise UnreadableNetwork(f"{WEIGHTS_FILE} does not hold the weights of {name}: {str(error)[:500]}") from error


def _load_transformers(
    folder: Path, document: dict[str, Any], kinds: Mapping[TaskName, NetworkKind], loading: Loading
) -> LoadedNetwork:
    model_type = document.get("model_type")
    task = task_of_config(document)
    if task is None or not isinstance(model_type, str):
        known = "; ".join(f"{kind}: {', '.join(classifiers(kind))}" for kind in classifier_tasks())
        raise UnreadableNetwork(
            f"{CONFIG_FILE}: model_type {model_type!r} is no network that can be loaded here; "
            f"those are {known}, and {OWN_MODEL_TYPE!r} for the project's own"
        )
    kind = kinds[task]
    kind.check_config(document)
    model, info = load_model(folder, library_config(document, kind), kind, loading=loading)
    refuse_mismatched(info["mismatched_keys"])
    refuse_missing(filter(kind.is_needed, info["missing_keys"]), unexpected=info["unexpected_keys"])
    return remembered(kind.wrap_loaded(model, folder), model_type)


def remembered(loaded: LoadedNetwork, model_type: str) -> LoadedNetwork:
    """Attaches to a network of ``transformers`` what it was built from, so that it can be saved."""
    architecture = TransformersArchitecture(name="transformers", model_type=model_type)
    remember(loaded.network, Built(architecture=architecture, input_shape=loaded.input_shape, kind=loaded.kind))
    return loaded


def library_config(document: dict[str, Any], kind: NetworkKind) -> Any:
    """The library's config of a ``config.json``. Raises UnreadableNetwork."""
    with _library_errors(kind):
        return AutoConfig.for_model(**document)


def load_model(folder: Path, config: Any, kind: NetworkKind, *, loading: Loading = FLOAT32) -> tuple[Any, Mapping[str, Any]]:
    """Loads a model of the library with this ``config``, and what it says of weights that are missing, left over or of another
    shape: these are made anew from torch's global generator.

    Raises:
        UnreadableNetwork: config and weights make no network of that kind.
    """
    with _library_errors(kind), no_progress_bars(), no_load_report(), _plain_folder(folder) as plain:
        model, info = kind.auto_class.from_pretrained(
            plain,
            config=config,
            **_as(loading, folder),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
        )
    _refuse_surplus(model, info["unexpected_keys"])
    return model, info


def _refuse_surplus(model: Any, unexpected: Iterable[str]) -> None:
    """Raises UnreadableNetwork if the files have more layers than the config: the library would leave them out in silence."""
    prefix = f"{model.base_model_prefix}."
    body = {_LAYER.sub(".#.", name) for name in model.base_model.state_dict()}
    if surplus := sorted(name for name in unexpected if _LAYER.sub(".#.", name.removeprefix(prefix)) in body):
        raise UnreadableNetwork(
            f"{WEIGHTS_FILE} has {', '.join(surplus[:3])}{' …' if len(surplus) > 3 else ''}, and {CONFIG_FILE} makes a network "
            "with fewer layers: save config and weights of one network"
        )


@contextmanager
def _library_errors(kind: NetworkKind) -> Iterator[None]:
    try:
        yield
    # As in building, the library has no error of its own for an invalid config or invalid weights.
    except LIBRARY_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
        raise UnreadableNetwork(f"{CONFIG_FILE} and {WEIGHTS_FILE} make no {kind.task} network: {reason}") from error


def refuse_mismatched(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Raises UnreadableNetwork if a weight has another shape than its config says: name, shape there, shape needed."""
    # ``ignore_mismatched_sizes`` lists the tensors, where the library would raise with the advice to ignore them.
    if wrong := sorted(mismatched):
        name, there, needed = wrong[0]
        raise UnreadableNetwork(
            f"{WEIGHTS_FILE}: {name} is {tuple(there)}, and {CONFIG_FILE} makes a network where it is {tuple(needed)}"
            f"{f' (and {len(wrong) - 1} more tensors differ)' if len(wrong) > 1 else ''}: save config and weights of one network"
        )


def refuse_missing(names: Iterable[str], *, unexpected: Iterable[str]) -> None:
    """Raises UnreadableNetwork if a weight is missing; ``unexpected`` are those that the network has no place for."""
    if missing := sorted(names):
        prefix = common_prefix(unexpected, needed=missing)
        remedy = "save the whole network with model.save_pretrained(folder)"
        if prefix is not None:
            remedy = f"it has them behind {prefix!r}; save that part of it, as network.{prefix}save_pretrained(folder)"
        raise UnreadableNetwork(f"{WEIGHTS_FILE} lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}: {remedy}")


def _as(loading: Loading, folder: Path) -> dict[str, Any]:
    """What the library is asked for: the format, on the device at once. What is to be quantised stays in its file's pages."""
    if loading.quantised is not None:
        return {"dtype": DTYPES[StoredWeights.of(folder).format]}
    on_cpu = loading.device.type == "cpu"  # where weights stay the pages of their file
    return {"dtype": loading.dtype} | ({} if on_cpu else {"device_map": {"": loading.device}})


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
    index = read_json(path)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise UnreadableNetwork(f"{path.name} has no weight_map")
    yield from sorted(set(weights.values()))
