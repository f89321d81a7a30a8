"""What the tasks share whose networks read each text as one row of tokens. B batch, L tokens, W outputs."""

from dataclasses import replace

from torch import Tensor, nn

from service.spec.inputs import TokenizerSpec
from worker.data import Data, Preprocessing, UnusableData
from worker.data.errors import UnfitInputs
from worker.data.preprocessing import first
from worker.data.raw_inputs import are_pairs
from worker.data.tensors import only_tensor
from worker.data.text.texts import TextPreprocessing, train_text_preprocessing
from worker.data.text.tokenization import NO_TOKEN, longest, split_types, with_types
from worker.models.network_kind import LoadedNetwork
from worker.models.transformers_network import TransformersNetwork

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


def texts_onnx_form(network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
    """Returns a network that reads rows as its tokenizer pads them, and the names of its inputs: token types of pairs as well.

    The users of an ONNX file have no other way to say where a row ends.
    """
    if not isinstance(preprocessing, TextPreprocessing):
        raise TypeError("a network of texts has a tokenizer")
    padded = _ReadingPadded(network, preprocessing.tokenizer.pad_token_id)
    reads_types = are_pairs(first(data.splits["train"].inputs, 1)) and any(
        getattr(module, "has_token_types", False) for module in network.modules()
    )
    return padded, (("input_ids", "token_type_ids") if reads_types else ("input_ids",))


class _ReadingPadded(nn.Module):
    def __init__(self, network: nn.Module, pad: int) -> None:
        super().__init__()
        self.network, self.pad = network, pad

    def forward(self, ids: Tensor, types: Tensor | None = None) -> Tensor:
        """Maps token ids (B, L), and their types, to outputs (B, W)."""
        tokens = ids.masked_fill(ids == self.pad, NO_TOKEN)
        outputs: Tensor = self.network(tokens if types is None else with_types(tokens, types))
        return outputs


def check_pair_types(loaded: LoadedNetwork, data: Data) -> None:
    """Raises UnfitInputs if the data are pairs whose token types a network that was trained before has no embedding for."""
    pairs, network = first(data.splits["train"].inputs, 1), loaded.network
    if not are_pairs(pairs) or not isinstance(network, TransformersNetwork) or not network.has_token_types:
        return
    _, types = split_types(only_tensor(loaded.preprocessing.prepare(pairs)))
    config = network.model.config
    known = getattr(config, "type_vocab_size", None)
    if known is not None and 0 < known <= int(types.max()):
        raise UnfitInputs(
            f"its tokenizer gives the second text of a pair the token type {int(types.max())}, and its config.json says "
            f"type_vocab_size {known}: it reads single texts alone; take token_type_ids out of model_input_names in "
            "tokenizer_config.json if it was trained on pairs without them"
        )


def fit_texts(reads: Preprocessing, data: Data) -> Preprocessing:
    """Fits the preprocessing of a network that was trained before to texts of any length."""
    if not isinstance(reads, TextPreprocessing) or reads.has_limit:
        return reads
    # Neither the network nor its tokenizer cuts a text: a student that reads the same tokens has to know the longest.
    found = max(longest(reads.tokenizer, split.inputs) for split in data.splits.values())
    return replace(reads, max_length=max(reads.max_length, found), has_limit=True)
