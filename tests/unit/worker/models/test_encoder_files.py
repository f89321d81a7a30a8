"""The files that sentence-transformers keeps beside an encoder, in the forms of its versions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.models.encoder_files import EncoderFiles, read_encoder_files, write_encoder_files
from worker.models.errors import UnreadableNetwork
from worker.models.pooling import POOLING, pool
from worker.sources.folder_files import module_files

PROMPTS = "config_sentence_transformers.json"
NEW = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
OLD = "sentence_transformers.models.Pooling"


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, document in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document))
    return folder


def modules(*, pooling: str = "1_Pooling", transformer: str = "", kind: str = NEW, more: Any = ()) -> Any:
    first = {"path": transformer, "type": "sentence_transformers.base.modules.transformer.Transformer"}
    return [first, {"path": pooling, "type": kind}, *more]


@pytest.mark.parametrize(
    ("pooling", "kind", "expected"),
    [
        ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, NEW, ("mean",)),
        ({"embedding_dimension": 32, "pooling_mode": "lasttoken"}, NEW, ("lasttoken",)),
        ({"embedding_dimension": 32, "pooling_mode": ["mean", "cls"]}, NEW, ("mean", "cls")),
        ({"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, OLD, ("cls",)),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            OLD,
            ("max", "mean"),
        ),
        ({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False}, OLD, ("mean",)),
    ],
)
def test_every_form_of_the_pooling_is_read(tmp_path: Path, pooling: dict[str, Any], kind: str, expected: tuple[str, ...]) -> None:
    write(tmp_path, {"modules.json": modules(kind=kind), "1_Pooling/config.json": pooling})
    assert read_encoder_files(tmp_path) == EncoderFiles(pooling=expected)  # type: ignore[arg-type]


def test_everything_that_changes_an_embedding_is_read(tmp_path: Path) -> None:
    normalize = {"path": "last", "type": "sentence_transformers.models.Normalize"}
    files = {
        "modules.json": modules(pooling="pooled", more=[normalize]),
        "pooled/config.json": {"embedding_dimension": 8, "pooling_mode": "cls"},
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": True},
        PROMPTS: {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
    }
    write(tmp_path, files)
    assert read_encoder_files(tmp_path) == EncoderFiles(("cls",), True, 12, True, "query: ")
    assert module_files(tmp_path) == [Path("pooled/config.json"), Path("last/config.json")]


PLAIN = {"modules.json": modules(), "1_Pooling/config.json": {"embedding_dimension": 8, "pooling_mode": "mean"}}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
OWN_CODE = {"path": "", "type": "custom.Transformer"}
PROMPT = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}


@pytest.mark.parametrize(
    ("files", "words", "remedy"),
    [
        (
            {"modules.json": modules(more=[DENSE])},
            r"lists Transformer, Pooling, Dense.*take Dense out of",
            {"modules.json": modules()},
        ),
        ({"modules.json": [OWN_CODE, modules()[1]]}, r"lists custom\.Transformer", {"modules.json": modules()}),
        ({"modules.json": {}}, "lists nothing", {"modules.json": modules()}),
        (
            {"modules.json": modules(transformer="0_Transformer")},
            "is in '0_Transformer'.*save it again",
            {"modules.json": modules()},
        ),
        (
            {"1_Pooling/config.json": {"pooling_mode": "median"}},
            "pools by 'median'; pooling is by cls, max, mean",
            {"1_Pooling/config.json": {"pooling_mode": "max"}},
        ),
        (
            {"1_Pooling/config.json": {"pooling_mode_median_tokens": True}},
            "pools by .'pooling_mode_median_tokens'.",
            {"1_Pooling/config.json": {"pooling_mode_max_tokens": True}},
        ),
        (
            {
                "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
                PROMPTS: PROMPT,
            },
            "include_prompt: false.*set include_prompt to true, or default_prompt_name",
            {PROMPTS: PROMPT | {"default_prompt_name": None}},
        ),
        (
            {PROMPTS: {"prompts": {}, "default_prompt_name": "query"}},
            "is 'query', which is none of prompts: add it there, or set it to null",
            {PROMPTS: PROMPT},
        ),
        (
            {PROMPTS: {"model_type": "SparseEncoder"}},
            "is of a SparseEncoder",
            {PROMPTS: {"model_type": "SentenceTransformer"}},
        ),
        (
            {"sentence_bert_config.json": {"model_kwargs": {"add_pooling_layer": False}}},
            "has model_kwargs, which is not computed here: leave it out",
            {"sentence_bert_config.json": {"model_kwargs": {}}},
        ),
        (
            {"sentence_bert_config.json": {"max_seq_length": "12"}},
            "max_seq_length is '12', not a number of tokens",
            {"sentence_bert_config.json": {"max_seq_length": None}},
        ),
        (
            {"modules.json": modules(more=[{"path": "n", "type": "sentence_transformers.models.Normalize"}])}
            | {"n/config.json": {"module_input_name": "token_embeddings"}},
            "normalises token_embeddings",
            {"n/config.json": {"module_input_name": "sentence_embedding"}},
        ),
        ({"modules.json": modules(pooling="../outside")}, "outside the folder", {"modules.json": modules()}),
    ],
)
def test_what_is_not_computed_is_refused_and_the_remedy_works(
    tmp_path: Path, files: dict[str, Any], words: str, remedy: dict[str, Any]
) -> None:
    write(tmp_path, PLAIN | files)
    with pytest.raises(UnreadableNetwork, match=words):
        read_encoder_files(tmp_path)
    write(tmp_path, remedy)
    read_encoder_files(tmp_path)


def test_a_pooling_that_sentence_transformers_would_not_find_is_refused(tmp_path: Path) -> None:
    assert read_encoder_files(tmp_path) == EncoderFiles()
    write(tmp_path, {"1_Pooling/config.json": {"pooling_mode": "cls"}})
    with pytest.raises(UnreadableNetwork, match=r"modules\.json is not.*add the other file"):
        read_encoder_files(tmp_path)
    write(tmp_path, {"modules.json": modules()})
    assert read_encoder_files(tmp_path).pooling == ("cls",)


def test_poolings_have_their_formulas_values_and_padding_has_none() -> None:
    states = torch.tensor([[[1.0, -4.0], [3.0, 0.0], [99.0, 99.0]], [[2.0, 2.0], [2.0, 8.0], [5.0, -1.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = {
        "cls": [[1, -4], [2, 2]],
        "max": [[3, 0], [5, 8]],
        "mean": [[2, -2], [3, 3]],
        "mean_sqrt_len_tokens": [[4 / 2**0.5, -4 / 2**0.5], [9 / 3**0.5, 9 / 3**0.5]],
        "weightedmean": [[7 / 3, -4 / 3], [21 / 6, 15 / 6]],
        "lasttoken": [[3, 0], [5, -1]],
    }
    assert expected.keys() == POOLING.keys()
    for mode in POOLING:
        torch.testing.assert_close(pool(states, mask, (mode,)), torch.tensor(expected[mode], dtype=torch.float32))
    assert torch.equal(pool(states, mask, ("max", "cls")), torch.tensor([[3.0, 0, 1, -4], [5, 8, 2, 2]]))


@pytest.mark.parametrize("pooling", [("mean",), ("cls",), ("cls", "mean"), ("mean", "cls")])
def test_what_is_written_is_read_again(tmp_path: Path, pooling: Any) -> None:
    class Network:
        token_width, has_unit_length = 8, True

    Network.pooling = pooling  # type: ignore[attr-defined]
    write_encoder_files(tmp_path, Network(), prompt="query: ")  # type: ignore[arg-type]
    assert read_encoder_files(tmp_path) == EncoderFiles(pooling=pooling, has_unit_length=True, prompt="query: ")
