"""What a teacher is asked, as a key: everything that its outputs for a split depend on.

Invariant: two questions with one key have the same answers, on a CPU to the last bit. N samples.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from service.formats import Waveform
from worker.data import Preprocessing, RawInputs
from worker.data.text import TextPreprocessing
from worker.evaluation.evaluate import EVALUATION_BATCH

FORMAT = 1
"""Goes up when the same question is to get other answers."""
PLAIN = "as stored"
"""The view of samples without augmentation."""

_OF_THE_PLACE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""What a network's config says of where it comes from rather than of what it computes."""

CacheKey = Mapping[str, Any]


def cache_key(
    network: nn.Module,
    inputs: RawInputs,
    preprocessing: Preprocessing,
    *,
    layers: Mapping[str, torch.Size],
    device: torch.device,
) -> CacheKey:
    """What is asked when a network behind ``preprocessing`` is shown ``inputs``, for its logits and for these layers.

    Of augmented samples it is another question for each ``view``.
    """
    return {
        "format": FORMAT,
        "network": _network_digest(network),
        "inputs": inputs_digest(inputs),
        "preprocessing": preprocessing_digest(preprocessing),
        "view": PLAIN,
        "layers": sorted(layers),
        "computed": _computed_on(device),
    }


def key_of(cache_key: CacheKey) -> str:
    """Its SHA-256, the name under which the answers are kept."""
    return hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()


def inputs_digest(inputs: RawInputs) -> str:
    """Of samples as they are stored: every byte of them, wherever they come from."""
    digest = hashlib.sha256()
    if isinstance(inputs, Tensor):
        digest.update(f"{inputs.dtype} {tuple(inputs.shape)}".encode())
        for chunk in torch.split(inputs, 1024):
            digest.update(tensor_bytes(chunk))
        return digest.hexdigest()
    for each in inputs:
        part = (
            f"{each.rate}\n".encode() + each.samples.tobytes()
            if isinstance(each, Waveform)
            else each.encode(errors="surrogatepass")
        )
        digest.update(f"{len(part)}\n".encode())
        digest.update(part)
    return digest.hexdigest()


def preprocessing_digest(preprocessing: Preprocessing) -> str:
    """Of all that a preprocessing knows."""
    known = repr(preprocessing)
    if isinstance(preprocessing, TextPreprocessing):
        tokenizer = preprocessing.tokenizer
        # What the last encoding was cut to stands in the tokenizer's own text as well.
        parts = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        known = json.dumps([parts, special, tokenizer.pad_token_id, preprocessing.max_length], sort_keys=True)
    return hashlib.sha256(f"{type(preprocessing).__name__}\n{known}".encode()).hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """All of its bytes, in C order."""
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data


def _network_digest(network: nn.Module) -> str:
    """Of a network's structure, its config and its weights."""
    digest = hashlib.sha256(str(network).encode())
    for module in network.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            told = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_PLACE}
            digest.update(json.dumps(told, sort_keys=True, default=str).encode())
            break
    state: Mapping[str, Tensor] = network.state_dict()
    for name in sorted(state):
        digest.update(f"\n{name} {state[name].dtype} {tuple(state[name].shape)}\n".encode())
        digest.update(tensor_bytes(state[name]))
    return digest.hexdigest()


def _computed_on(device: torch.device) -> Sequence[str | int]:
    """What decides on the last bits of what a network gives."""
    told: list[str | int] = [device.type, torch.__version__, EVALUATION_BATCH]
    if device.type == "cpu":
        told += [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    return told
