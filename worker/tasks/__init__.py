"""The tasks as a trainer sees them, one module each; ``service.spec.tasks`` has what a spec is checked by.

A network, its data, its loss and its figures are told apart by task here alone: everything above this package calls a method of
:class:`worker.tasks.task.Task`, everything below gets what it needs as an argument.
"""

from service.spec.tasks import TaskName
from worker.tasks.audio_classification import AudioClassification
from worker.tasks.causal_lm import CausalLM
from worker.tasks.image_classification import ImageClassification
from worker.tasks.sentence_embedding import SentenceEmbedding
from worker.tasks.task import Distillation, Task
from worker.tasks.text_classification import TextClassification

TASKS: dict[TaskName, Task] = {
    "image-classification": ImageClassification(),
    "text-classification": TextClassification(),
    "audio-classification": AudioClassification(),
    "sentence-embedding": SentenceEmbedding(),
    "causal-lm": CausalLM(),
}

__all__ = ["TASKS", "Distillation", "Task"]
