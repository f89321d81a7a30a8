"""What the tasks share whose networks read each text as one row of tokens."""

from dataclasses import replace

from service.spec.inputs import TokenizerSpec
from worker.data import Data, Preprocessing, UnusableData
from worker.data.text import TextPreprocessing, train_text_preprocessing

NO_TOKENIZER = "a network that is trained on texts needs a tokenizer: {train: wordpiece, vocab_size: 8000}, say"


def choose_text_preprocessing(
    data: Data, *, tokenizer: TokenizerSpec | None, teachers: Preprocessing | None
) -> TextPreprocessing:
    """Trains a tokenizer on the training split's texts, or takes the teacher's without its prompt.

    Raises:
        UnusableData: there is neither a tokenizer nor a teacher, or no text to train on.
    """
    if tokenizer is not None:
        return train_text_preprocessing(data.splits["train"].inputs, tokenizer)
    if not isinstance(teachers, TextPreprocessing):
        raise UnusableData(NO_TOKENIZER)
    # A student learns its teacher's embeddings without the prompt.
    return replace(teachers, prompt="") if teachers.prompt else teachers
