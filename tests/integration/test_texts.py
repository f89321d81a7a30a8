"""Texts, from a spec to a student that reads by a tokenizer of its own: classes, numbers, several targets with gaps."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.spec import parse_spec
from tests.integration.test_methods import Recorder, student
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Failed, Finished, Stopped

WORDS = {"colour": ["red", "green", "blue"], "animal": ["cat", "dog", "horse", "mouse"], "tree": ["oak", "elm", "pine"]}
BERT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 2}
WORDPIECE = {"train": "wordpiece", "vocab_size": 100, "max_length": 16}
BPE = {"train": "bpe", "vocab_size": 300, "max_length": 16}
STOP_AT = 4


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """120 texts: what they are of, how many words they have (for two of three), and a label that every other row lacks."""
    path = tmp_path / "texts.jsonl"
    lines = []
    for index in range(120):
        kind = list(WORDS)[index % 3]
        number = 1 + index % 4
        text = " ".join(WORDS[kind][(index // 3 + place) % len(WORDS[kind])] for place in range(number))
        row: dict[str, Any] = {"text": text, "label": kind, "words": None if index % 3 == 2 else float(number)}
        row["long"] = None if index % 2 else "yes" if number > 2 else "no"
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def spec(rows: Path, **changes: Any) -> dict[str, Any]:
    """A BERT with WordPiece teaches a GPT-2 with byte pairs."""
    document = {
        "task": "text-classification",
        "dataset": {"source": f"file:{rows}", "targets": changes.pop("targets", ["label"])},
        "teacher": {"architecture": network("bert", BERT), "tokenizer": WORDPIECE, "training": {"max_steps": 3}},
        "student": {"architecture": network("gpt2", GPT2), "tokenizer": BPE},
        "method": {"name": "soft-targets"},
        "training": {"max_steps": 10, "batch_size": 16},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def network(model_type: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": "transformers", "model_type": model_type, "config": config}


def train(document: dict[str, Any], folder: Path, *, stop_at: int | None = None) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(stop_at=stop_at)
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))}
    run(Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text())
    return found


@pytest.mark.parametrize(
    ("targets", "method"),
    [
        (["label"], {"name": "soft-targets"}),
        (["label"], {"name": "distillation-network"}),
        (["words"], {"name": "soft-targets"}),
        (["label", "words", "long"], {"name": "multi-task", "weighting": "uncertainty"}),
        (["label", "words", "long"], {"name": "distillation-network"}),
        (["label"], {"name": "rkd", "weight": 0.1}),
        (["label"], {"name": "crd", "negatives": 16}),
        (["label"], {"name": "similarity-preserving"}),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "+".join(value),
)
def test_a_student_with_its_own_tokenizer_is_trained_and_resumes_exactly(
    tmp_path: Path, rows: Path, targets: list[str], method: dict[str, Any]
) -> None:
    if targets == ["words"]:
        rows.write_text("\n".join(line for line in rows.read_text().splitlines() if json.loads(line)["words"] is not None))
    document = spec(rows, targets=targets, method=method)
    whole = train(document, tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    assert list(report(tmp_path / "whole")["data"]["targets"]) == targets

    assert train(document, tmp_path / "stopped", stop_at=STOP_AT).events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped").events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


@pytest.mark.parametrize("method", ["distilbert", "distillation-network"])
def test_a_student_that_begins_with_its_teachers_layers_resumes_exactly(tmp_path: Path, rows: Path, method: str) -> None:
    halved = {"source": "teacher-layers", "architecture": network("bert", BERT | {"num_hidden_layers": 2})}
    document = spec(rows, student=halved, method={"name": method}, evaluation={"control": True})
    whole = train(document, tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    assert report(tmp_path / "whole")["student"]["source"] == "teacher-layers"
    assert train(document, tmp_path / "stopped", stop_at=STOP_AT).events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped").events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")

    other = train(spec(rows, student=halved | {"layers": [1, 3]}, method={"name": method}), tmp_path / "others")
    assert isinstance(other.events[-1], Finished)
    assert student(tmp_path / "others") != student(tmp_path / "whole")


def test_layers_of_another_width_fail_the_job_before_anything_is_trained(tmp_path: Path, rows: Path) -> None:
    narrow = {"source": "teacher-layers", "architecture": network("bert", BERT | {"intermediate_size": 8})}
    *_, last = train(spec(rows, student=narrow), tmp_path / "job").events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/student/source"})
    assert "give the student its teacher's model_type and widths" in last.message


@pytest.mark.parametrize("name", ["fitnet", "vid", "distilbert"])
def test_token_by_token_a_student_learns_from_a_teacher_that_reads_the_same_tokens(tmp_path: Path, rows: Path, name: str) -> None:
    reads_as_its_teacher = {"architecture": network("gpt2", GPT2)}
    last = train(spec(rows, student=reads_as_its_teacher, method={"name": name}), tmp_path / "job").events[-1]
    assert isinstance(last, Finished), last


@pytest.mark.parametrize("name", ["fitnet", "vid", "distilbert"])
def test_token_by_token_two_tokenizers_cannot_be_compared(tmp_path: Path, rows: Path, name: str) -> None:
    *_, last = train(spec(rows, method={"name": name}), tmp_path / "job").events
    assert isinstance(last, Failed)
    assert last.code == "invalid_spec"
    assert f"{name} compares token by token" in last.message
    assert "leave student.tokenizer out" in last.message


def test_inner_layers_are_found_by_their_paths_in_both_networks(tmp_path: Path, rows: Path) -> None:
    layers = {"student": ["transformer.h.0"], "teacher": ["bert.encoder.layer.3"]}
    last = train(spec(rows, method={"name": "pkt", "weight": 1, "layers": layers}), tmp_path / "job").events[-1]
    assert isinstance(last, Finished), last


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": {"tokenizer": WORDPIECE | {"vocab_size": 32}}}, "vocab_size 32 is too small for a wordpiece tokenizer"),
        ({"student": {"tokenizer": BPE | {"vocab_size": 100}}}, "vocab_size 100 is too small for a bpe tokenizer"),
    ],
)
def test_a_vocabulary_below_the_alphabet_fails_the_job_before_anything_is_trained(
    tmp_path: Path, rows: Path, changes: dict[str, dict[str, Any]], words: str
) -> None:
    document = spec(rows)
    for part, changed in changes.items():
        document[part] |= changed
    *_, last = train(document, tmp_path / "job").events
    assert isinstance(last, Failed)
    assert last.code == "invalid_data"
    assert words in last.message


def test_an_empty_text_fails_the_job_and_is_named(tmp_path: Path, rows: Path) -> None:
    lines = rows.read_text().splitlines()
    lines[7] = json.dumps(json.loads(lines[7]) | {"text": "  "})
    rows.write_text("\n".join(lines))
    last = train(spec(rows), tmp_path / "job").events[-1]
    assert isinstance(last, Failed)
    assert last.code == "invalid_data"
    assert "column 'text', line 8: the text is empty" in last.message
