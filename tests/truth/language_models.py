"""Causal language models: the logits of every token of a row, compared with the library's on the tokens of its tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.spec.data import DatasetSpec
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import read_as_a_job
from tests.truth.subject import Outcome, Settings, Subject
from tests.truth.text_networks import ALONE, TEXT_SWITCHES, save_network, texts_of, write_rows
from tests.truth.texts import REFUSALS, most_positions
from worker.data import Split
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.models.language_network import LanguageNetwork
from worker.trained import load_teacher

LANGUAGE_SWITCHES = TEXT_SWITCHES | {"rows": ["packed", "padded", "isolated"], "output head": ["its own", "the embedding's"]}
_ROW = 10


def causal_lm() -> Subject:
    """Causal language models."""
    return Subject("causal-lm", classifiers("causal-lm"), LANGUAGE_SWITCHES, _try_language_model, ALONE)


def _try_language_model(model_type: str, settings: Settings, folder: Path) -> Outcome:
    saved = folder / "teacher"
    save_network(
        AutoModelForCausalLM, model_type, settings, saved, tie_word_embeddings=settings["output head"] == "the embedding's"
    )
    path = folder / f"rows.{settings['file']}"
    write_rows(path, [{"text": text} for text in texts_of(settings["texts"])] * 4)
    packing: Any = settings["rows"]
    spec = DatasetSpec(source=f"file:{path}", input="text", targets=[], packing=packing, row_tokens=_ROW)
    try:
        data = read_as_a_job(spec, path, "causal-lm")
        teacher = load_teacher(saved, source="model:saved", data=data)
        for split in data.splits.values():
            teacher.outputs(split)
    except REFUSALS as error:
        return Outcome(str(error))
    assert isinstance(teacher.network, LanguageNetwork)
    assert isinstance(teacher.preprocessing, LanguagePreprocessing)
    tokenizer, model = AutoTokenizer.from_pretrained(saved), AutoModelForCausalLM.from_pretrained(saved).eval()
    for split in data.splits.values():
        rows = teacher.preprocessing.rows(split)
        ids: Sequence[Tensor] | Tensor = rows.ids
        expected_ids = _rows(tokenizer, split, length=min(_ROW, most_positions(model) or _ROW))
        with torch.no_grad():
            computed = teacher.network.head(teacher.network.hidden(rows.ids, rows.positions))
        logits: Sequence[Tensor] | Tensor = computed
        if rows.positions is not None:
            ids, logits = _texts_of(rows.ids, computed, rows.positions)
            expected_ids = sorted(expected_ids)
        assert len(ids) == len(expected_ids), "the number of rows"
        for row, outputs, own in zip(ids, logits, expected_ids, strict=True):
            assert row[: len(own)].tolist() == own, "the tokens"
            with torch.no_grad():
                expected = model(input_ids=torch.tensor([own])).logits[0]
            torch.testing.assert_close(outputs[: len(own)], expected, rtol=1e-4, atol=1e-4)
    return Outcome()


def _texts_of(ids: Tensor, logits: Tensor, positions: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The texts that share rows, each with its logits, sorted by its tokens; padding is a text of one token at position 0."""
    starts = [(row, place) for row, place in (positions == 0).nonzero().tolist()]
    ends = [
        place if row == own else positions.shape[1] for (own, _), (row, place) in zip(starts, [*starts[1:], (-1, 0)], strict=True)
    ]
    found = [
        (ids[row, first:end], logits[row, first:end]) for (row, first), end in zip(starts, ends, strict=True) if end - first > 1
    ]
    found.sort(key=lambda text: text[0].tolist())
    return [text for text, _ in found], [outputs for _, outputs in found]


def _rows(tokenizer: Any, split: Split, *, length: int) -> list[list[int]]:
    """The tokens that the library's tokenizer makes of the texts, each with its end, in rows of ``length``."""
    texts = [tokenizer(text)["input_ids"] for text in split.inputs]
    end = [tokenizer.eos_token_id]
    adds_end = tokenizer("a beta")["input_ids"][-1:] == end  # a text may also end with the name of that token
    texts = [ids if adds_end else ids + end for ids in texts]
    if not split.is_packed or split.is_isolated:
        return [ids[:length] for ids in texts]
    stream = [token for ids in texts for token in ids]
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
