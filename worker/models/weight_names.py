"""The names of a folder's weights, where they were saved from a network that something wrapped.

torch.compile, DistributedDataParallel and the like put a part of their own into every name. Invariant: a name that two tensors
would share without these parts is refused, so that no tensor is ever taken for another.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from worker.models.errors import UnreadableNetwork

_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""The parts of torch.compile, FullyShardedDataParallel and activation checkpointing; no layer has such a name."""
_PARALLEL = "module."
"""The part of DataParallel and DistributedDataParallel, where every name begins with it: a layer may be called so too."""


def unwrapped_state(folder: Path, *, shards: Iterable[str]) -> dict[str, Tensor] | None:
    """The folder's tensors under the names of the plain network; None if they have these names already.

    Raises:
        UnreadableNetwork: two tensors would have the same name.
    """
    paths = [folder / shard for shard in shards]
    by_name = plain_names([name for path in paths for name in _names(path)])
    if all(name == plain for name, plain in by_name.items()):
        return None
    repeated = [plain for plain, count in Counter(by_name.values()).items() if count > 1]
    if repeated:
        raise UnreadableNetwork(
            f"{paths[0].name} holds {min(repeated)!r} twice, plain and as a wrapped network names it: "
            "save one network's own weights, those of torch.compile's `network._orig_mod` or DistributedDataParallel's "
            "`network.module`"
        )
    return {by_name[name]: tensor for path in paths for name, tensor in load_file(path).items()}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without the parts of wrappers."""
    plain = {name: _WRAPPERS.sub("", name) for name in names}
    while plain and all(name.startswith(_PARALLEL) for name in plain.values()):
        plain = {name: short.removeprefix(_PARALLEL) for name, short in plain.items()}
    return plain


def common_prefix(names: Iterable[str], *, needed: Iterable[str]) -> str | None:
    """The prefix with which ``names`` has every needed name, of a network that was an attribute of another; None if none is."""
    there, wanted = set(names), list(needed)
    if not wanted:
        return None
    first = wanted[0]
    for name in sorted(there):
        prefix = name.removesuffix(first)
        if prefix and prefix.endswith(".") and name == prefix + first and all(prefix + each in there for each in wanted):
            return prefix
    return None


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError):
        return []  # reported by what loads it
