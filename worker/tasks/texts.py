"""What the tasks share whose networks read each text as one row of tokens. B batch, L tokens, W outputs."""

from dataclasses import replace

from torch import Tensor, nn

from service.spec.inputs import TokenizerSpec
from worker.data import Data, Preprocessing, UnusableData
from worker.data.text import TextPreprocessing, train_text_preprocessing
from worker.data.tokenization import NO_TOKEN, longest

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


def texts_onnx_form(network: nn.Module, preprocessing: Preprocessing | None) -> tuple[nn.Module, str]:
    """Returns a network that reads rows as its tokenizer pads them, and the name of its input.

    The users of an ONNX file have no other way to say where a row ends.
    """
    if not isinstance(preprocessing, TextPreprocessing):
        raise TypeError("a network of texts has a tokenizer")
    return _ReadingPadded(network, preprocessing.tokenizer.pad_token_id), "input_ids"


class _ReadingPadded(nn.Module):
    def __init__(self, network: nn.Module, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, ids: Tensor) -> Tensor:
        """Maps token ids (B, L) to outputs (B, W)."""
        outputs: Tensor = self.network(ids.masked_fill(ids == self.pad, NO_TOKEN))
        return outputs


def fit_texts(reads: Preprocessing, data: Data) -> Preprocessing:
    """Fits the preprocessing of a network that was trained before to texts of any length."""
    if not isinstance(reads, TextPreprocessing) or reads.has_limit:
        return reads
    # Neither the network nor its tokenizer cuts a text: a student that reads the same tokens has to know the longest.
    found = max(longest(reads.tokenizer, split.inputs) for split in data.splits.values())
    return replace(reads, max_length=max(reads.max_length, found), has_limit=True)
