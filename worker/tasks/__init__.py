"""The tasks as a trainer sees them, one module each; ``service.spec.tasks`` has what a spec is checked by.

A network, its data, its loss and its figures are told apart by task here alone: everything above this package calls a method of
:class:`worker.tasks.task.Task`, everything below gets what it needs as an argument.
"""

from pathlib import Path

from service.spec.tasks import TaskName
from worker.models import LoadedNetwork, read_network
from worker.models.loading import FLOAT32, Loading
from worker.tasks.audio_classification import AudioClassification
from worker.tasks.causal_lm import CausalLM
from worker.tasks.image_classification import ImageClassification
from worker.tasks.sentence_embedding import SentenceEmbedding
from worker.tasks.task import Distillation, Task
from worker.tasks.text_classification import TextClassification
from worker.tasks.token_classification import TokenClassification

TASKS: dict[TaskName, Task] = {
    "image-classification": ImageClassification(),
    "text-classification": TextClassification(),
    "audio-classification": AudioClassification(),
    "token-classification": TokenClassification(),
    "sentence-embedding": SentenceEmbedding(),
    "causal-lm": CausalLM(),
}


def load_network(folder: Path, *, loading: Loading = FLOAT32) -> LoadedNetwork:
    """Reads a student's or a teacher's folder, of any task: see :func:`worker.models.read_network`.

    Raises:
        UnreadableNetwork: a file is missing, broken, or of a kind that is never loaded.
        UnfitArchitecture: the network that the files describe cannot be built.
    """
    return read_network(folder, {name: task.network for name, task in TASKS.items()}, loading=loading)


__all__ = ["TASKS", "Distillation", "Task", "load_network"]
