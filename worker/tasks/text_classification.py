"""Classes and numbers of texts."""

from service.spec.architectures import Architecture
from service.spec.inputs import Features, TokenizerSpec
from worker.data import Data, Preprocessing
from worker.tasks.labelled import LabelledTask
from worker.tasks.texts import choose_text_preprocessing


class TextClassification(LabelledTask):
    """Networks that map texts to outputs of their targets."""

    name = "text-classification"

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        return choose_text_preprocessing(data, tokenizer=tokenizer, teachers=teachers)
