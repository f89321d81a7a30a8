"""What of the data takes no part in a job is told in its check and in its report."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from service.formats import Waveform
from service.spec import parse_spec
from tests.integration.test_embeddings import spec as embedding_spec
from tests.integration.test_reading import classification, classified, language, write
from tests.integration.test_texts import BERT, WORDPIECE, network, report, train
from tests.unit.worker.preflight.jobs import digits, estimate
from worker.data import Data, Split, SplitName, load_data
from worker.data.data_warnings import with_warnings
from worker.protocol import Finished
from worker.targets import Targets
from worker.tasks import TASKS


def told(document: dict[str, Any], folder: Path) -> dict[str, str]:
    """The warnings of a job's report by code, which are those of its check."""
    path = Path(document["dataset"]["source"].removeprefix("file:"))
    checked = estimate(document, folder, inputs={document["dataset"]["source"]: path})
    last = train(document, folder / "job").events[-1]
    assert isinstance(last, Finished), last
    found = report(folder / "job")["warnings"]
    of_data = [each for each in found if each["code"] in {warning.code for warning in checked.warnings}]
    assert of_data == [warning.model_dump() for warning in checked.warnings]
    assert [each for each in last.result["warnings"] if each in of_data] == of_data
    return {each["code"]: each["message"] for each in of_data}


def test_texts_tell_what_takes_no_part(tmp_path: Path) -> None:
    rows = classified()
    rows[3]["label"] = rows[35]["label"] = None
    rows += [{"text": f"more {index}", "label": "a", "split": "extra"} for index in range(4)]
    rows[31]["text"] = rows[2]["text"]
    rows[30]["text"] = "red " * 30
    for row in rows[24:30]:
        row["label"] = "a"
    for row in rows:
        row["source"] = "web"
    found = told(classification(write(tmp_path / "texts.jsonl", rows)), tmp_path)
    assert found.keys() == {"column_unused", "split_unused", "labels_missing", "class_without_rows", "rows_in_train", "texts_cut"}
    assert found["split_unused"] == "split 'extra' of the dataset (4 rows) takes no part: dataset.splits may name it"
    assert "column 'source' takes no part" in found["column_unused"]
    assert found["labels_missing"] == (
        "1 of 6 rows of the test split have no value of 'label' and are not scored; the first: test split, row 35 (line 36)"
    )
    assert found["class_without_rows"] == (
        "1 of the 2 classes of 'label' have no row in the validation split, whose scores say nothing of them: 'b'"
    )
    assert found["rows_in_train"].startswith(
        "1 of 6 rows of the test split are in the training data too, such as test split, row 31 (line 32), which is "
        "train split, row 2 (line 3): "
    )
    assert found["texts_cut"].startswith(
        "1 of 6 texts of the test split are cut at their end, as the student reads 16 tokens; the first: "
        "test split, row 30 (line 31). To read more, raise max_length"
    )


def test_a_text_of_exactly_the_length_is_not_cut(tmp_path: Path) -> None:
    rows = classified()
    rows[30]["text"] = " ".join(["red"] * 14)  # and the two tokens around it
    document = classification(write(tmp_path / "texts.jsonl", rows), teacher=_teacher(WORDPIECE))
    checked = estimate(document, tmp_path, inputs={document["dataset"]["source"]: tmp_path / "texts.jsonl"})
    assert [warning for warning in checked.warnings if warning.code == "texts_cut"] == []


def test_two_networks_of_one_tokenizer_are_told_together(tmp_path: Path) -> None:
    rows = classified()
    rows[30]["text"] = rows[0]["text"] + " red" * 20
    document = classification(write(tmp_path / "texts.jsonl", rows), teacher=_teacher(WORDPIECE))
    checked = estimate(document, tmp_path, inputs={document["dataset"]["source"]: tmp_path / "texts.jsonl"})
    (cut,) = [warning.message for warning in checked.warnings if warning.code == "texts_cut"]
    assert "as the teacher and the student reads 16 tokens" in cut


def _teacher(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": network("bert", BERT), "tokenizer": tokenizer, "training": {"max_steps": 2}}


def test_a_language_model_tells_what_it_drops(tmp_path: Path) -> None:
    rows = [{"text": row["text"] * 4, "split": row["split"]} for row in classified()]
    found = told(language(write(tmp_path / "texts.jsonl", rows), row_tokens=7), tmp_path)
    assert found.keys() == {"tokens_dropped"}
    assert found["tokens_dropped"].endswith("fill no row of 7 tokens and are dropped")


def test_a_language_model_with_answers_tells_what_it_cuts(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "answer": f"yes {index}", "split": row["split"]} for index, row in enumerate(classified())]
    rows[4]["text"], rows[33]["answer"] = "red " * 40, "cat " * 40
    found = told(language(write(tmp_path / "texts.jsonl", rows), targets=["answer"]), tmp_path)
    assert found.keys() == {"prompts_cut", "texts_cut"}
    assert found["prompts_cut"].startswith("1 of 24 prompts of the train split are cut at their beginning, ")
    assert found["texts_cut"].startswith("1 of 6 answers of the test split are cut at their end, ")
    assert "the first: test split, row 33 (line 34)" in found["texts_cut"]


def test_images_that_are_in_two_splits_are_found(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    labels = np.arange(30) % 2
    parts = {"train": slice(0, 20), "valid": slice(20, 25), "test": slice(25, 30)}
    images[26], images[21], images[29] = images[3], images[3], images[4]
    values_of: dict[str, Any] = {"image": images, "label": labels}
    arrays = {f"{name}_{column}": values[rows] for name, rows in parts.items() for column, values in values_of.items()}
    np.savez(tmp_path / "images.npz", **arrays)
    spec = parse_spec(digits(dataset={"source": "file:x"}))
    data = with_warnings(load_data(spec.dataset, tmp_path / "images.npz", task=TASKS[spec.task]), spec, task=TASKS[spec.task])
    assert [warning.message.split(":")[0] for warning in data.warnings] == [
        "1 of 5 rows of the validation split are in the training data too, such as validation split (of the file's split "
        "'valid'), row 1, which is train split, row 3",
        "2 of 5 rows of the test split are in the training data too, such as test split, row 1, which is train split, row 3",
    ]


def test_sounds_that_are_cut_and_repeated_are_told() -> None:
    def clips(*seconds: float) -> list[Waveform]:
        return [Waveform(np.full(round(each * 100), each, np.float32), 100) for each in seconds]

    by_part: dict[SplitName, list[Waveform]] = {"train": clips(1, 2, 3), "validation": clips(4, 5), "test": clips(2, 1.5)}
    splits = {part: Split(inputs, torch.arange(len(inputs)) % 2, part=part) for part, inputs in by_part.items()}
    data = Data("audio-classification", splits, Targets.of_classes(["a", "b"]), clip_seconds=2.5)
    found = with_warnings(data, parse_spec(digits()), task=TASKS[data.task]).warnings
    assert [warning.code for warning in found] == ["rows_in_train", "clips_cut", "clips_cut"]
    assert found[0].message.startswith("1 of 2 rows of the test split are in the training data too, such as test split, row 0")
    assert found[1].message == (
        "1 of 3 clips of the train split are longer than dataset.clip_seconds, and cut to 2.5 s; the longest has 3.0 s: train "
        "split, row 2"
    )
    assert found[2].message.startswith("2 of 2 clips of the validation split")


def test_splits_that_cannot_tell_good_from_bad_are_told(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "size": float(index), "split": row["split"]} for index, row in enumerate(classified())]
    for row in rows[30:]:
        row["size"] = 4.0
    path = write(tmp_path / "texts.jsonl", rows)
    of_numbers = parse_spec(classification(path, dataset={"source": f"file:{path}", "targets": ["size"]}))
    task = TASKS[of_numbers.task]
    found = with_warnings(load_data(of_numbers.dataset, path, task=task), of_numbers, task=task).warnings
    (equal,) = [warning.message for warning in found if warning.code == "score_undefined"]
    assert equal.startswith("all 6 values of 'size' in the test split are equal: R² is 0 of any network")
    path = write(tmp_path / "two.jsonl", [{"text": row["text"], "split": row["split"]} for row in rows[:32]])
    embedded = parse_spec(embedding_spec() | {"dataset": {"source": f"file:{path}"}})
    task = TASKS[embedded.task]
    found = with_warnings(load_data(embedded.dataset, path, task=task), embedded, task=task).warnings
    (few,) = [warning.message for warning in found if warning.code == "score_undefined"]
    assert few.startswith("the test split has 2 texts, and the score, the correlation of all pairs' similarities, is 0")
