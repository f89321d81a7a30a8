"""Text encoders with the files of sentence-transformers, compared with sentence-transformers on each text alone."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoModel

from service.spec.data import DatasetSpec
from service.spec.transformers_fit import classifiers
from tests.truth.service_path import read_as_a_job
from tests.truth.subject import Outcome, Settings, Subject
from tests.truth.text_networks import ALONE, POSITIONS, TEXT_SWITCHES, save_network, texts_of, write_rows
from tests.truth.texts import REFUSALS, compare, most_positions
from worker.trained import load_teacher

_SHARED = ["tokenizer", "special tokens", "letters", "pad token", "padding side", "token types", "texts"]
ENCODER_SWITCHES = {
    **{name: TEXT_SWITCHES[name] for name in _SHARED},
    "cut at": ["the tokenizer's limit", "nothing", "max_seq_length"],
    "pooling": ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", "mean, cls"],
    "files": ["since 5.4", "before 5.4", "none", "normalised, in other folders"],
    "prompt": ["none", "by default"],
    "do_lower_case": ["no", "yes"],
}
"""Further switches of an encoder: how it was saved, and by which version."""
_ALONE = {**ALONE, "files": ["a dense layer", "the encoder in a folder"], "prompt": ["left out of the pooling"]}
_WIDTH = 16
_OLDER_NAMES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def sentence_embedding() -> Subject:
    """Encoders of every model type that reads texts."""
    return Subject("sentence-embedding", classifiers("sentence-embedding"), ENCODER_SWITCHES, _try_encoder, _ALONE)


def _try_encoder(model_type: str, settings: Settings, folder: Path) -> Outcome:
    saved = folder / "teacher"
    encoder = saved / "0_Transformer" if settings["files"] == "the encoder in a folder" else saved
    unused = {"cut side": "right", "names of special tokens": "special"}
    save_network(AutoModel, model_type, {**unused, **settings}, encoder)
    if settings["files"] != "none":
        _write_files(saved, settings)
    texts = texts_of(settings["texts"])
    path = folder / "rows.jsonl"
    write_rows(path, [{"text": text} for text in texts] * 2)
    try:
        data = read_as_a_job(DatasetSpec(source=f"file:{path}", input="text", targets=[]), path, "sentence-embedding")
        teacher = load_teacher(saved, source="model:saved", data=data)
        computed = {part: teacher.outputs(split) for part, split in data.splits.items()}
    except REFUSALS as error:
        return Outcome(str(error))
    compare(data, computed, _expected(saved, texts))
    return Outcome()


def _expected(folder: Path, texts: list[str]) -> dict[str, Tensor]:
    """What sentence-transformers computes of each text, cut where it cuts, or where the network ends."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    most = most_positions(encoder[0].model)
    if most is not None and (encoder.max_seq_length or most + 1) > most:  # where it would fail
        encoder.max_seq_length = most
    return {text: encoder.encode(text, convert_to_tensor=True, show_progress_bar=False) for text in texts}


def _write_files(folder: Path, settings: Settings) -> None:
    files, is_new = settings["files"], settings["files"] != "before 5.4"
    modes = settings["pooling"].split(", ")
    pooling: dict[str, Any] = {"embedding_dimension": _WIDTH, "pooling_mode": modes if len(modes) > 1 else modes[0]}
    if not is_new:
        pooling = {"word_embedding_dimension": _WIDTH, **{flag: mode in modes for mode, flag in _OLDER_NAMES.items()}}
    pooling["include_prompt"] = settings["prompt"] != "left out of the pooling"
    place = "pooled" if files == "normalised, in other folders" else "1_Pooling"
    encoder = "0_Transformer" if files == "the encoder in a folder" else ""
    parts = ("base.modules.transformer", "sentence_transformer.modules.pooling") if is_new else ("models", "models")
    modules = [(encoder, f"{parts[0]}.Transformer"), (place, f"{parts[1]}.Pooling")]
    if files == "normalised, in other folders":
        modules.append(("last", "base.modules.normalize.Normalize" if is_new else "models.Normalize"))
    if files == "a dense layer":
        modules.append(("2_Dense", "models.Dense"))
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    prompt = {"prompts": {"query": "eta zeta "}, "default_prompt_name": "query"} if settings["prompt"] != "none" else {}
    how: dict[str, Any] = {"max_seq_length": POSITIONS - 10} if settings["cut at"] == "max_seq_length" else {}
    if settings["do_lower_case"] == "yes":
        how["do_lower_case"] = True
    _write(folder / place / "config.json", pooling)
    _write(folder / "modules.json", listed)
    _write(folder / "config_sentence_transformers.json", prompt)
    _write(folder / encoder / "sentence_bert_config.json", how)


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
