"""Classes of words, from a file to a student that its library loads, by every method that fits, and after an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nervaluate import Evaluator
from transformers import AutoModelForTokenClassification, AutoTokenizer

from examples.named_entities import sentences
from service.spec import parse_spec
from service.spec.methods import METHODS
from service.spec.tasks import TASKS
from tests.integration.test_methods import SMALL, Recorder, student
from worker.job.attempt import run
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Failed, Finished, Stopped, Warned
from worker.tasks import load_network

METHODS_OF_WORDS = [name for name, method in METHODS.items() if method.kind in TASKS["token-classification"].methods]
WORDPIECE = {"train": "wordpiece", "vocab_size": 320, "max_length": 64}
STOP_AT = 3


def network(width: int) -> dict[str, Any]:
    config = {
        "hidden_size": width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    return {"name": "transformers", "model_type": "bert", "config": config}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some sentences with tags, in all three splits."""
    path = tmp_path_factory.mktemp("entities") / "entities.jsonl"
    path.write_text("".join(json.dumps(each.as_tags()) + "\n" for each in sentences(250)), encoding="utf-8")
    return path


def spec(path: Path, **changes: Any) -> dict[str, Any]:
    document = {
        "task": "token-classification",
        "dataset": {"source": f"file:{path}"},
        "teacher": {"architecture": network(16), "tokenizer": WORDPIECE, "training": {"max_steps": 4, "batch_size": 16}},
        "student": {"architecture": network(8)},
        "training": {"max_steps": 6, "batch_size": 16},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def train(
    document: dict[str, Any],
    folder: Path,
    *,
    stop_at: int | None = None,
    inputs: dict[str, Path] | None = None,
    cache: Path | None = None,
) -> list[Any]:
    folder.mkdir(exist_ok=True)
    dataset = document["dataset"]
    files = {source: Path(source.removeprefix("file:")) for source in (dataset["source"], dataset["transfer"]) if source}
    recorder = Recorder(stop_at=stop_at)
    run(
        Assignment(job_id="job_test", spec=document, folder=folder, inputs=files | (inputs or {}), num_threads=1, cache=cache),
        recorder,
    )
    return recorder.events


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text())
    return document


@pytest.mark.parametrize("name", METHODS_OF_WORDS)
def test_a_method_trains_a_student_and_resumes_exactly(rows: Path, tmp_path: Path, name: str) -> None:
    method = {"name": name} | SMALL.get(name, {})
    if name == "teacher-assistant":
        method["assistants"] = [network(12)]
    peers = {"teacher": {"architecture": network(16), "tokenizer": WORDPIECE}} if name == "deep-mutual" else {}
    document = spec(rows, method=method, **peers)
    events = train(document, tmp_path / "whole")
    assert isinstance(events[-1], Finished), events[-1]

    assert isinstance(train(document, tmp_path / "stopped", stop_at=STOP_AT)[-1], Stopped)
    assert isinstance(train(document, tmp_path / "stopped")[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_a_student_of_spans_is_that_of_their_words(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(json.dumps(each.as_spans()) + "\n" for each in sentences(250)), encoding="utf-8")
    by_tags, by_spans = tmp_path / "tags", tmp_path / "spans"
    assert isinstance(train(spec(rows), by_tags)[-1], Finished)
    document = spec(path, dataset={"source": f"file:{path}", "input": "text", "targets": ["spans"]})
    assert isinstance(train(document, by_spans)[-1], Finished)
    assert student(by_spans) == student(by_tags)


def test_the_report_has_entities_by_type_and_its_library_loads_the_student(rows: Path, tmp_path: Path) -> None:
    longer = {"max_steps": 120, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    teacher = {"architecture": network(32), "tokenizer": WORDPIECE, "training": longer}
    document = spec(rows, teacher=teacher, student={"architecture": network(16)}, training=longer, evaluation={"control": True})
    events = train(document, tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    card = report(tmp_path / "job")["student"]
    assert card["metrics"].keys() == {"tags", "tags: LOC", "tags: ORG", "tags: PER"}
    assert card["test_score"] == card["metrics"]["tags"]["f1"] > 0.1
    assert card["test_accuracy"] is None
    low, high = card["test_interval"]
    assert low < card["test_score"] < high

    folder = tmp_path / "job" / RESULT_FOLDER / "student"
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    loaded = load_network(folder)
    words = ["Ada", "Weber", "works", "for", "Berlin", "Motors", "in", "Oslo", "."]
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    places = inputs.word_ids()
    with torch.no_grad():
        theirs = model(**inputs).logits[0, [places.index(index) for index in range(len(words))]]
        ours = loaded.network(loaded.preprocessing(loaded.preprocessing.prepare([words])))[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)

    test = [row for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines()) if row["split"] == "test"]
    found = [tags_of(model, tokenizer, row["tokens"]) for row in test]
    reference = Evaluator([row["tags"] for row in test], found, tags=["LOC", "ORG", "PER"], loader="list").evaluate()
    expected = {"tags": reference["overall"]} | {f"tags: {name}": each for name, each in reference["entities"].items()}
    for name, by_scheme in expected.items():
        strict, reported = by_scheme["strict"], card["metrics"][name]
        scores = (reported["precision"], reported["recall"], reported["f1"])
        assert scores == pytest.approx((strict.precision, strict.recall, strict.f1)), name


def tags_of(model: Any, tokenizer: Any, words: list[str]) -> list[str]:
    """The tags of a row of words as the library's documentation computes them: a word's is that of its first piece."""
    inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    places = inputs.word_ids()
    with torch.no_grad():
        classes = model(**inputs).logits[0].argmax(dim=-1)
    return [model.config.id2label[int(classes[places.index(index)])] for index in range(len(words))]


def test_student_and_teacher_may_have_other_tokenizers(rows: Path, tmp_path: Path) -> None:
    own = {"train": "bpe", "vocab_size": 300, "max_length": 64}
    events = train(spec(rows, student={"architecture": network(8), "tokenizer": own}), tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["agreement"] is not None


def test_a_given_teacher_is_read_by_the_names_of_its_classes(rows: Path, tmp_path: Path) -> None:
    longer = {"max_steps": 120, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    teacher = {"architecture": network(32), "tokenizer": WORDPIECE, "training": longer}
    assert isinstance(train(spec(rows, teacher=teacher), tmp_path / "first")[-1], Finished)
    score = report(tmp_path / "first")["teacher"]["test_score"]
    saved = tmp_path / "first" / RESULT_FOLDER / "teacher"
    model = AutoModelForTokenClassification.from_pretrained(saved)
    order = list(range(model.config.num_labels))[::-1]
    names = [model.config.id2label[index] for index in order]
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[order].clone())
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    given = tmp_path / "given"
    model.save_pretrained(given)
    AutoTokenizer.from_pretrained(saved).save_pretrained(given)

    document = spec(rows, teacher={"source": "model:given"})
    events = train(document, tmp_path / "second", inputs={"model:given": given})
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "second")["teacher"]["test_score"] == pytest.approx(score)


def test_rows_without_any_tag_take_a_given_teachers_classes(rows: Path, tmp_path: Path) -> None:
    assert isinstance(train(spec(rows), tmp_path / "first")[-1], Finished)
    given = tmp_path / "first" / RESULT_FOLDER / "teacher"
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps(each.as_tags() | {"tags": None}) + "\n" for each in sentences(250)), encoding="utf-8")
    document = spec(bare, teacher={"source": "model:given"})
    events = train(document, tmp_path / "second", inputs={"model:given": given})
    assert isinstance(events[-1], Finished), events[-1]
    assert set(report(tmp_path / "second")["data"]["targets"]["tags"]) == set(load_network(given).targets.classes)


def test_outputs_of_words_are_the_same_from_the_cache(rows: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name, folder in (("alone", None), ("writes", cache), ("reads", cache)):
        events = train(spec(rows), tmp_path / name, cache=folder)
        assert isinstance(events[-1], Finished), events[-1]
        assert student(tmp_path / name) == student(tmp_path / "alone")


def test_a_student_learns_from_rows_without_tags(rows: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"tokens": each.tokens}) + "\n" for each in sentences(100, seed=7)), encoding="utf-8")
    document = spec(rows, dataset={"source": f"file:{rows}", "transfer": f"file:{bare}"})
    events = train(document, tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["data"]["rows"]["transfer"] > 50


def test_some_words_and_some_rows_may_have_no_tag(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    written = [each.as_tags() for each in sentences(250)]
    train_rows = [row for row in written if row["split"] == "train"]
    train_rows[0]["tags"] = None
    train_rows[1]["tags"] = [None] * len(train_rows[1]["tokens"])  # type: ignore[arg-type]
    path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    events = train(spec(path), tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    told = {event.code: event.message for event in events if isinstance(event, Warned)}
    assert "have no value of 'tags' and teach by a teacher's outputs alone" in told["labels_missing"]


def test_a_check_finds_a_row_that_the_network_cannot_hold(rows: Path, tmp_path: Path) -> None:
    short = WORDPIECE | {"max_length": 16}
    teacher = {"architecture": network(16), "tokenizer": short, "training": {"max_steps": 4, "batch_size": 16}}
    for name, act in (("checked", check), ("run", run)):
        folder = tmp_path / name
        folder.mkdir()
        recorder = Recorder()
        document = spec(rows, teacher=teacher)
        act(
            Assignment(job_id="job_test", spec=document, folder=folder, inputs={f"file:{rows}": rows}, num_threads=1),
            recorder,
        )
        failed = recorder.events[-1]
        assert isinstance(failed, Failed)
        assert "pieces, and the network reads 16" in failed.message
        assert "(line " in failed.message


def test_a_check_estimates_the_job(rows: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    assignment = Assignment(job_id="job_test", spec=spec(rows), folder=tmp_path, inputs={f"file:{rows}": rows}, num_threads=1)
    check(assignment, recorder)
    checked = recorder.events[-1]
    assert isinstance(checked, Checked), checked
    assert checked.estimate["steps"] == {"teacher": 4, "student": 6}
    assert checked.estimate["memory_gib"] > 0
