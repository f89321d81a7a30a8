"""A split as one network reads it, each text tokenised once; what cannot be read is named by its place in the file. N samples."""

from dataclasses import fields

from torch import Tensor

from worker.data.dataset import Split
from worker.data.errors import UnusableData, UnusableRow
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.preprocessing import Preprocessing
from worker.data.text import TextPreprocessing


def read_split(split: Split, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Prepared inputs (N, …) and labels (N,) or (N, M); of a causal language model rows (N, L) and their loss mask (N, L).

    Raises:
        UnusableData: a sample, or the split, cannot be read by this network; the message names the split, the row and the line.
    """
    if not isinstance(preprocessing, TextPreprocessing | LanguagePreprocessing):
        return preprocessing.prepare(split.inputs), split.labels
    sources = (split.inputs, split.answers, preprocessing.tokenizer)
    others = {each.name: getattr(preprocessing, each.name) for each in fields(preprocessing) if each.name != "tokenizer"}
    settings = (type(preprocessing), others, split.is_packed)
    made = split.read.find(sources, settings)
    if made is None:
        try:
            if isinstance(preprocessing, LanguagePreprocessing):
                rows = preprocessing.rows(split)
                made = rows.ids, rows.mask
            else:
                made = (preprocessing.prepare(split.inputs),)
        except UnusableRow as error:
            raise UnusableData(f"{split.place(error.index)}: {error.problem}") from error
        except UnusableData as error:
            raise UnusableData(f"{split.name}: {error}") from error
        split.read.keep(sources, settings, made)
    inputs, *masks = made
    return inputs, masks[0] if masks else split.labels
