"""The networks: built from the spec, saved to and loaded from folders. Each maps images (B, C, H, W) to logits (B, classes)."""

from worker.data.preprocessing import Preprocessing
from worker.models.build import build_network, num_parameters
from worker.models.errors import UnfitArchitecture, UnreadableNetwork
from worker.models.folder import LoadedNetwork, load_network, save_network

__all__ = [
    "LoadedNetwork",
    "Preprocessing",
    "UnfitArchitecture",
    "UnreadableNetwork",
    "build_network",
    "load_network",
    "num_parameters",
    "save_network",
]
