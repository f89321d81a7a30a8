"""Causal language models, from a spec to a student that its library loads, and again with an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.spec import parse_spec
from service.spec.architectures import TransformersNetwork
from service.spec.inputs import TokenizerSpec
from service.spec.methods import OF_TOKENS
from tests.integration.test_methods import Recorder, student, train
from worker.data.text.texts import train_text_preprocessing
from worker.models import build_network, save_network
from worker.protocol import RESULT_FOLDER, Failed, Finished, PhaseStarted, Stopped
from worker.targets import Targets
from worker.tasks import TASKS

STOP_AT = 3
WRITES: dict[str, Any] = {"max_new_tokens": 5, "prompt_tokens": 3}
SMALL: dict[str, dict[str, Any]] = {"sequence": WRITES | {"num_beams": 2}, "on-policy": WRITES | {"student_share": 0.6}}


def network(width: int) -> dict[str, Any]:
    return {
        "name": "transformers",
        "model_type": "gpt2",
        "config": {"n_layer": 1, "n_embd": width, "n_head": 2, "n_positions": 16},
    }


def spec(path: Path, method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A teacher and a student that differ in width; for ``uld`` in tokenizers too."""
    tokenizer = {"train": "bpe", "vocab_size": 300, "max_length": 16}
    of_its_own = {"train": "wordpiece", "vocab_size": 80, "max_length": 16} if method["name"] == "uld" else None
    document = {
        "task": "causal-lm",
        "dataset": {"source": f"file:{path}"},
        "teacher": {"architecture": network(32), "tokenizer": tokenizer, "training": {"max_steps": 4, "batch_size": 8}},
        "student": {"architecture": network(16), "tokenizer": of_its_own},
        "method": method,
        "training": {"max_steps": 6, "batch_size": 8},
    }
    return parse_spec(document | changes).model_dump(mode="json")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Sums in words, each with what it makes."""
    tens = ["", "twenty ", "thirty ", "forty ", "fifty ", "sixty ", "seventy "]
    ones = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    rows = [
        {"text": f"{ten}{one} and one make", "answer": f" {ten}{ones[index + 1]}"}
        for ten in tens
        for index, one in enumerate(ones[:-1])
    ]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(document: dict[str, Any], folder: Path, *, stop_at: int | None = None, teacher: Path | None = None) -> Recorder:
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))} | ({document["teacher"]["source"]: teacher} if teacher else {})
    return train(document, folder, stop_at=stop_at, inputs=inputs)


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("name", sorted(OF_TOKENS))
def test_a_method_trains_a_language_model_and_resumes_exactly(name: str, tmp_path: Path, texts: Path) -> None:
    document = spec(texts, {"name": name} | SMALL.get(name, {}))
    whole = run(document, tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    card = report(tmp_path / "whole")
    assert card["student"]["metrics"]["next token"]["perplexity"] > 1
    assert (card["agreement"] is None) == (name == "uld")

    stopped = run(document, tmp_path / "stopped", stop_at=STOP_AT)
    assert stopped.events[-1] == Stopped("drain")
    assert isinstance(run(document, tmp_path / "stopped").events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_the_student_of_answers_loads_with_its_library_and_says_what_the_trained_one_said(tmp_path: Path, texts: Path) -> None:
    answers = {"source": f"file:{texts}", "targets": ["answer"]}
    document = spec(texts, {"name": "forward-kl"}, dataset=answers, evaluation={"control": True})
    assert document["dataset"]["packing"] == "padded"
    last = run(document, tmp_path / "job").events[-1]
    assert isinstance(last, Finished), last
    folder = tmp_path / "job" / RESULT_FOLDER / "student"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[*tokenizer("one and two make", add_special_tokens=False)["input_ids"]]])
    assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))
    assert tokenizer.decode(ids[0]) == "one and two make"
    card = report(tmp_path / "job")
    assert card["gain"] == card["student"]["test_accuracy"] - card["control"]["test_accuracy"]
    assert "AutoModelForCausalLM" in (tmp_path / "job" / RESULT_FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_row_with_no_place_for_what_is_to_be_written_fails_the_job_before_the_teacher_is_trained(
    tmp_path: Path, texts: Path
) -> None:
    *_, last = run(spec(texts, {"name": "on-policy", "max_new_tokens": 15}), tmp_path / "job").events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/method/max_new_tokens"})


def test_a_student_may_teach_the_next_one_in_shorter_rows_with_its_tokenizer_or_another(tmp_path: Path, texts: Path) -> None:
    assert isinstance(run(spec(texts, {"name": "forward-kl"}), tmp_path / "first").events[-1], Finished)
    teacher = tmp_path / "first" / RESULT_FOLDER / "student"
    given = {"source": "job:job_00000000000000000000000000"}
    dataset = {"source": f"file:{texts}", "row_tokens": 12}
    last = run(spec(texts, {"name": "jsd"}, teacher=given, dataset=dataset), tmp_path / "unfit", teacher=teacher).events[-1]
    assert isinstance(last, Failed)
    assert last.code == "teacher_unfit", "six steps teach less than the frequencies of the tokens"
    assert "where their frequencies alone have" in last.message
    given["accept_score"] = "any"
    same = spec(texts, {"name": "jsd"}, teacher=given, dataset=dataset)
    assert isinstance(run(same, tmp_path / "same", teacher=teacher).events[-1], Finished)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "same" / RESULT_FOLDER / "student")
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(teacher).get_vocab()
    assert tokenizer.model_max_length == 12
    other = spec(texts, {"name": "uld"}, teacher=given, dataset=dataset)
    last = run(other, tmp_path / "other", teacher=teacher).events[-1]
    assert isinstance(last, Finished), last


def test_a_student_may_begin_with_its_teachers_layers_and_not_with_another_tokenizer(tmp_path: Path, texts: Path) -> None:
    deep = network(16) | {"config": network(16)["config"] | {"n_layer": 2}}
    teacher = {
        "architecture": deep,
        "tokenizer": {"train": "bpe", "vocab_size": 300, "max_length": 16},
        "training": {"max_steps": 4, "batch_size": 8},
    }
    student = {"source": "teacher-layers", "architecture": network(16)}
    last = run(spec(texts, {"name": "forward-kl"}, teacher=teacher, student=student), tmp_path / "job").events[-1]
    assert isinstance(last, Finished), last
    own = student | {"tokenizer": {"train": "bpe", "vocab_size": 290, "max_length": 16}}
    *_, failed = run(spec(texts, {"name": "uld"}, teacher=teacher, student=own), tmp_path / "other").events
    assert isinstance(failed, Failed)
    assert failed.details == {"pointer": "/student/tokenizer"}


def test_a_teacher_that_is_no_language_model_fails_the_job(tmp_path: Path, texts: Path) -> None:
    reads = train_text_preprocessing(["one and two"], TokenizerSpec(train="bpe", vocab_size=300, max_length=16))
    architecture = TransformersNetwork.model_validate(network(16))
    classifier = build_network(
        architecture, kind=TASKS["text-classification"].network, input_shape=reads.input_shape([]), num_outputs=2
    )
    save_network(classifier, tmp_path / "teacher", preprocessing=reads, targets=Targets.of_classes(["a", "b"]))
    given = spec(texts, {"name": "jsd"}, teacher={"source": "model:model_00000000000000000000000000"})
    last = run(given, tmp_path / "job", teacher=tmp_path / "teacher").events[-1]
    assert isinstance(last, Failed)
    assert "is no causal language model" in last.message


def test_a_library_that_gives_the_network_another_tokenizer_fails_the_export(tmp_path: Path, texts: Path) -> None:
    """Folders of Qwen2 load with Qwen2's own class of tokenizer, which reads the words of a WordPiece otherwise."""
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "max_position_embeddings": 16,
    }
    qwen2 = {"name": "transformers", "model_type": "qwen2", "config": config}
    document = spec(
        texts,
        {"name": "forward-kl"},
        teacher={
            "architecture": network(16),
            "tokenizer": {"train": "wordpiece", "vocab_size": 80, "max_length": 16},
            "training": {"max_steps": 2},
        },
        student={"architecture": qwen2},
        training={"max_steps": 2},
    )
    events = run(document, tmp_path / "job").events
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("export_mismatch", "/student/architecture")
    assert not any(isinstance(event, PhaseStarted) for event in events), "nothing is trained before"


def test_a_split_of_fewer_tokens_than_a_row_is_told_before_the_teacher_is_trained(tmp_path: Path, texts: Path) -> None:
    long = {"train": "bpe", "vocab_size": 300, "max_length": 128}
    roomy = {"name": "transformers", "model_type": "gpt2", "config": {"n_layer": 1, "n_embd": 16, "n_head": 2}}
    document = spec(texts, {"name": "jsd"}, teacher={"architecture": roomy, "tokenizer": long}, student={"architecture": roomy})
    *_, last = run(document, tmp_path / "job").events
    assert isinstance(last, Failed)
    assert last.code == "invalid_data"
    assert "validation split: all texts together are" in last.message
