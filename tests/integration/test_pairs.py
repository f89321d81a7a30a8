"""Pairs of texts, from a file to a student that its library loads: trained here, given, of classes and of numbers."""

import json
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from service.spec import parse_spec
from tests.integration.test_methods import Recorder, student, train
from tests.truth.text_networks import TEXT_SWITCHES, save_network
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Finished, Stopped, Warned

PAIR = ["premise", "hypothesis"]
NAMES, DEEDS, THINGS = ["ann", "ben", "cleo", "dan", "eve"], ["sees", "buys", "paints", "sells"], ["a tree", "a boat", "a house"]
SOURCE = "model:model_00000000000000000000000000"
WORDPIECE = {"train": "wordpiece", "vocab_size": 400, "max_length": 24}
CLASSES = ["contradiction", "entailment", "neutral"]


def rows() -> list[dict[str, Any]]:
    """Sentences, what follows from each, what does not, and what cannot be; and how many words both share."""
    found = []
    for index, (name, deed, thing) in enumerate((a, b, c) for a in NAMES for b in DEEDS for c in THINGS):
        premise = f"{name} {deed} {thing}" + " every day" * (index % 5 == 0)
        other = NAMES[(index + 1) % len(NAMES)]
        for hypothesis, label in (
            (f"somebody {deed} {thing}", "entailment"),
            (f"{name} {deed} {thing} with {other}", "neutral"),
            (f"{name} never {deed} {thing}", "contradiction"),
        ):
            shared = len(set(premise.split()) & set(hypothesis.split())) / len(set(hypothesis.split()))
            split = "test" if index % 4 == 0 else "train"
            found.append({"premise": premise, "hypothesis": hypothesis, "label": label, "likeness": shared, "split": split})
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    found.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return found


def network(width: int, model_type: str = "bert") -> dict[str, Any]:
    config = {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 40,
    }
    return {"name": "transformers", "model_type": model_type, "config": config}


def spec(path: Path, *, targets: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    training = {"epochs": 8, "batch_size": 12, "optimizer": {"name": "adamw", "learning_rate": 5e-3}}
    document = {
        "task": "text-classification",
        "dataset": {"source": f"file:{path}", "input": PAIR, "targets": targets or ["label"]},
        "teacher": {"architecture": network(32), "tokenizer": WORDPIECE, "training": training, "accept_score": "any"},
        "student": {"architecture": network(16)},
        "training": training,
        "evaluation": {"control": False},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def run(document: dict[str, Any], folder: Path, path: Path, **options: Any) -> Recorder:
    inputs = {f"file:{path}": path} | options.pop("inputs", {})
    return train(document, folder, inputs=inputs, **options)


def report(folder: Path) -> Any:
    return json.loads((folder / RESULT_FOLDER / "report.json").read_text())


def test_a_student_of_pairs_is_read_by_its_library_alone_and_by_onnx_and_resumes_exactly(path: Path, tmp_path: Path) -> None:
    training = {
        "epochs": 3,
        "batch_size": 24,
        "augment": [{"name": "token-dropout", "probability": 0.1}],
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
    }
    document = spec(path, training=training, exports=["onnx", "onnx-int8"])
    last = run(document, tmp_path / "job", path).events[-1]
    assert isinstance(last, Finished), last
    told = report(tmp_path / "job")
    assert told["data"]["pairs"] is True
    assert told["teacher"]["test_score"] > 0.6, "a third of the rows has each label"

    result = tmp_path / "job" / RESULT_FOLDER
    tokenizer = AutoTokenizer.from_pretrained(result / "student")
    model = AutoModelForSequenceClassification.from_pretrained(result / "student").eval()
    first, second = (["ann sees a tree", "ben buys a boat"], ["somebody sees a tree", "ben never buys a boat every day"])
    inputs = tokenizer(first, second, padding=True, truncation=True, return_tensors="pt")
    assert inputs["token_type_ids"].any()
    with torch.no_grad():
        logits = model(**inputs).logits
        without = model(**{**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}).logits
    assert not torch.equal(logits, without), "its token types are read"
    session = onnxruntime.InferenceSession(result / "student.onnx", providers=["CPUExecutionProvider"])
    names = ["input_ids", "token_type_ids"]
    (exported,) = session.run(None, {name: inputs[name].numpy() for name in names})
    torch.testing.assert_close(torch.from_numpy(exported), logits, atol=1e-4, rtol=1e-4)
    session = onnxruntime.InferenceSession(result / "student.int8.onnx", providers=["CPUExecutionProvider"])
    fed = {name: inputs[name].numpy() for name in names}
    (small,), (blind,) = (session.run(None, each) for each in (fed, fed | {"token_type_ids": 0 * fed["token_type_ids"]}))
    assert 0 < (torch.from_numpy(small) - logits).abs().max() < 0.1 * logits.abs().max()
    assert (small != blind).any(), "its token types are read there too"
    assert told["exports"][1]["agreement"] > 0.9
    tested = [row for row in rows() if row["split"] == "test"]
    texts = ([row[name] for row in tested] for name in PAIR)
    with torch.no_grad():
        chosen = model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits.argmax(dim=1).tolist()
    right = [model.config.id2label[index] == row["label"] for index, row in zip(chosen, tested, strict=True)]
    assert sum(right) / len(right) == pytest.approx(told["student"]["test_score"])
    card = (result / "README.md").read_text()
    (program,) = re.findall(r"^## Use\n\n```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    assert 'tokenizer(["some text"], ["another"], padding=True' in program

    stopped, document = tmp_path / "stopped", document | {"exports": []}
    assert isinstance(run(document, stopped, path, stop_at=5).events[-1], Stopped)
    assert isinstance(run(document, stopped, path).events[-1], Finished)
    assert student(stopped) == student(tmp_path / "job")


def test_a_given_teacher_of_pairs_is_mapped_by_the_names_of_its_classes(path: Path, tmp_path: Path) -> None:
    settings = {name: values[0] for name, values in TEXT_SWITCHES.items()} | {"token types": "given"}
    save_network(
        AutoModelForSequenceClassification, "bert", settings, tmp_path / "teacher", id2label=dict(enumerate(CLASSES[::-1]))
    )
    document = spec(
        path,
        teacher={"source": SOURCE, "accept_score": "any"},
        student={"architecture": network(16, "roberta"), "tokenizer": WORDPIECE | {"train": "bpe", "max_length": 20}},
        training={"max_steps": 4, "batch_size": 24},
    )
    recorder = run(document, tmp_path / "job", path, inputs={SOURCE: tmp_path / "teacher"})
    assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "teacher")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher").eval()
    right = 0
    for row in (tested := [row for row in rows() if row["split"] == "test"]):
        with torch.no_grad():
            logits = model(
                **tokenizer(row["premise"], row["hypothesis"], truncation=True, max_length=16, return_tensors="pt")
            ).logits
        right += model.config.id2label[int(logits.argmax())] == row["label"]
    assert report(tmp_path / "job")["teacher"]["test_score"] == pytest.approx(right / len(tested))
    told = [event.message for event in recorder.events if isinstance(event, Warned)]
    assert any("second texts of the train split are cut at their end" in message for message in told), told


def test_how_alike_two_texts_are_is_a_number_and_a_check_reads_the_longest_pairs(path: Path, tmp_path: Path) -> None:
    document = spec(path, targets=["likeness"])
    (tmp_path / "check").mkdir()
    recorder = Recorder()
    assignment = Assignment(
        job_id="job_test", spec=document, folder=tmp_path / "check", inputs={f"file:{path}": path}, num_threads=1
    )
    check(assignment, recorder)
    assert isinstance(recorder.events[-1], Checked), recorder.events[-1]
    last = run(document, tmp_path / "job", path).events[-1]
    assert isinstance(last, Finished), last
    told = report(tmp_path / "job")
    assert told["student"]["metrics"]["likeness"]["r2"] > 0.2
    assert told["data"]["pairs"] is True
