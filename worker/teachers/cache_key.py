"""The cache key of a teacher's outputs on a split: everything that the outputs depend on.

Invariant: equal keys mean equal outputs, on a CPU to the last bit. N samples.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from worker.data import Preprocessing, RawInputs
from worker.data.disk.stored import StoredInputs
from worker.data.raw_inputs import sample_bytes
from worker.data.text.tokenization import gives_token_types
from worker.evaluation.evaluate import EVALUATION_BATCH
from worker.models.loading import plain_tensors

FORMAT = 2
"""Increased when the same inputs are to give other outputs."""
PLAIN = "as stored"
"""The view of samples without augmentation."""

_PROVENANCE_FIELDS = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
"""Fields of a network's config that say where it comes from, not what it computes."""

CacheKey = Mapping[str, Any]


def cache_key(
    network: nn.Module,
    inputs: RawInputs,
    preprocessing: Preprocessing,
    *,
    layers: Mapping[str, torch.Size],
    device: torch.device,
) -> CacheKey:
    """The key of a network's logits and features of ``layers`` on ``inputs`` behind ``preprocessing``.

    Augmented samples have a key for each ``view``.
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
    """SHA-256 of a cache key, the name of its folder."""
    return hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()


def inputs_digest(inputs: RawInputs) -> str:
    """SHA-256 of samples as they are stored: of every byte, or of their digests where they stay on disk."""
    digest = hashlib.sha256()
    if isinstance(inputs, Tensor):
        digest.update(f"{inputs.dtype} {tuple(inputs.shape)}".encode())
        for chunk in torch.split(inputs, 1024):
            digest.update(tensor_bytes(chunk))
        return digest.hexdigest()
    if isinstance(inputs, StoredInputs):
        digest.update(f"on disk {inputs.kind} {inputs.canvas}".encode())
        digest.update(inputs.digests().tobytes())
        return digest.hexdigest()
    for each in inputs:
        part = sample_bytes(each)
        digest.update(f"{len(part)}\n".encode())
        digest.update(part)
    return digest.hexdigest()


def preprocessing_digest(preprocessing: Preprocessing) -> str:
    """SHA-256 of all parameters of a preprocessing, and of whether its tokenizer tells the two texts of a pair apart."""
    tokenizer = preprocessing.own_tokenizer
    has_types = tokenizer is not None and gives_token_types(tokenizer)
    return hashlib.sha256(f"{type(preprocessing).__name__}\n{preprocessing.parameters}\n{has_types}".encode()).hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """All bytes of a tensor, in C order."""
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data


def _network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's structure, its config and its weights, in whatever number format they are held."""
    digest = hashlib.sha256(str(network).encode())
    for module in network.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            values = {name: value for name, value in config.to_dict().items() if name not in _PROVENANCE_FIELDS}
            digest.update(json.dumps(values, sort_keys=True, default=str).encode())
            break
    state: Mapping[str, Tensor] = network.state_dict()
    for name in sorted(state):
        for part, tensor in plain_tensors(state[name]):
            digest.update(f"\n{name}{part} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _computed_on(device: torch.device) -> Sequence[str | int]:
    """Everything about the machine that the last bits of a network's outputs depend on."""
    parts: list[str | int] = [device.type, torch.__version__, EVALUATION_BATCH]
    if device.type == "cpu":
        parts += [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    return parts
