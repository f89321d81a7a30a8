"""Networks, built from the spec, saved to folders and loaded from them. Each maps inputs (B, …) to outputs (B, W)."""

from worker.data.preprocessing import Preprocessing
from worker.models.build import build_network, build_on_meta, built_from, num_parameters
from worker.models.errors import UnfitArchitecture, UnreadableNetwork
from worker.models.folder import read_network, save_network
from worker.models.network_kind import LoadedNetwork, NetworkKind

__all__ = [
    "LoadedNetwork",
    "NetworkKind",
    "Preprocessing",
    "UnfitArchitecture",
    "UnreadableNetwork",
    "build_network",
    "build_on_meta",
    "built_from",
    "num_parameters",
    "read_network",
    "save_network",
]
