"""Weighted rows, lists of labels and probabilities on handwritten digits, from a spec to a student; a stop changes nothing."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from transformers import pipeline

from service.spec import parse_spec
from service.spec.methods import METHODS, OF_TOKENS
from tests.integration.test_chain import StopIn, report
from tests.integration.test_given_teachers import SMALL
from tests.integration.test_methods import Recorder, student
from tests.integration.test_texts import WORDPIECE, network
from tests.unit.formats.files import encoded, write_jsonl
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Event, Failed, Finished, Stopped
from worker.tasks import load_network

ROUND, DIGITS = {0, 6, 8, 9}, 900
MIXED = {"epochs": 2, "batch_size": 50, "augment": ["mixup"], "views": 2, "label_smoothing": 0.1, "class_weights": "balanced"}


def traits_of(digit: int) -> list[str]:
    return [name for name, has in (("big", digit > 4), ("even", digit % 2 == 0), ("round", digit in ROUND)) if has]


def write_digits(path: Path, *, labelled: bool = True) -> Path:
    """Digits with what they are, what five annotators say, who take some for the next one, and how far a label is to be trusted:
    of 6 in 10 training rows it is wrong, and not at all."""
    found = load_digits()
    images, digits = found.images[:DIGITS].astype(np.uint8) * 15, found.target[:DIGITS]
    random = np.random.default_rng(0)
    is_test = np.arange(DIGITS) % 3 == 0
    is_wrong = (random.random(DIGITS) < 0.6) & ~is_test
    seen = (digits[:, None] + (random.random((DIGITS, 5)) < 0.2)) % 10
    table: dict[str, Any] = {
        "image": [{"bytes": encoded(image), "path": None} for image in images],
        "label": np.where(is_wrong, (digits + 1) % 10, digits),
        "trust": np.where(is_wrong, 0.0, 2.0),
        "traits": [traits_of(int(digit)) for digit in digits],
        "votes": [np.bincount(each, minlength=10) / 5 for each in seen],
        "split": np.where(is_test, "test", "train"),
    }
    if not labelled:
        table = {name: table[name] for name in ("image", "split")}
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("digits")
    more = write_digits(folder / "more.parquet", labelled=False)
    return {"file:digits": write_digits(folder / "digits.parquet"), "file:more": more}


def spec(targets: list[str], *, weight: str | None = None, transfer: str | None = None, **changes: Any) -> dict[str, Any]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "file:digits", "targets": targets, "weight": weight, "transfer": transfer},
        "teacher": {"architecture": {"name": "small-cnn", "width": 12}, "training": {"epochs": 8, "batch_size": 50}},
        "student": {"architecture": {"name": "small-cnn", "width": 8}},
        "training": {"epochs": 8, "batch_size": 50},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def train(document: dict[str, Any], folder: Path, inputs: dict[str, Path], *, stop_in: str | None = None) -> Event:
    folder.mkdir(exist_ok=True)
    recorder: Recorder = StopIn(stop_in)
    run(Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder.events[-1]


def test_what_a_row_is_worth_decides_what_is_learnt(digits: dict[str, Path], tmp_path: Path) -> None:
    """Most labels are wrong, and the test split's are right: only who leaves the wrong ones out learns anything."""
    scores = {}
    for weight in ("trust", None):
        assert isinstance(train(spec(["label"], weight=weight), tmp_path / str(weight), digits), Finished)
        told = report(tmp_path / str(weight))
        scores[weight] = told["teacher"]["test_score"], told["student"]["test_score"]
    assert min(scores["trust"]) > 0.7
    assert max(scores[None]) < 0.5


def test_any_of_several_classes_are_learnt_scored_and_given_out(digits: dict[str, Path], tmp_path: Path) -> None:
    document = spec(["traits"], exports=["onnx"], evaluation={"control": True})
    assert isinstance(train(document, tmp_path, digits), Finished)
    told, folder = report(tmp_path), tmp_path / RESULT_FOLDER
    figures = told["student"]["metrics"]["traits"]

    assert (told["data"]["label_kinds"], told["data"]["classes"]) == ({"traits": "labels"}, ["big", "even", "round"])
    assert figures.keys() == {"mean_average_precision", "micro_f1", "macro_f1", "exact_match", "loss"}
    assert told["student"]["test_score"] == pytest.approx(figures["micro_f1"])
    assert told["student"]["test_accuracy"] is None
    assert figures["micro_f1"] > 0.8 < figures["mean_average_precision"]
    low, high = told["student"]["test_interval"]
    assert low < figures["micro_f1"] < high
    assert json.loads((folder / "student" / "labels.json").read_text()) == {"traits": {"any_of": ["big", "even", "round"]}}
    loaded = load_network(folder / "student")
    assert loaded.targets.each[0].is_multi_label

    found = load_digits()
    chosen, wanted = [], []
    for row in range(0, DIGITS, 3):
        image = torch.from_numpy(found.images[row].astype(np.uint8) * 15)[None, None]
        with torch.no_grad():
            chosen.append((loaded.network(loaded.preprocessing(image))[0] > 0).numpy())
        wanted.append([name in traits_of(found.target[row]) for name in ("big", "even", "round")])
    assert f1_score(wanted, chosen, average="micro") == pytest.approx(figures["micro_f1"])

    card = (folder / "README.md").read_text()
    assert "traits (any of 3 classes)" in card
    assert "from a probability of 0.5 on" in card
    Image.fromarray(found.images[4].astype(np.uint8) * 15).save(folder / "image.png")
    assert printed(card, folder) == str(traits_of(4))


def printed(card: str, folder: Path) -> str:
    """What the card's program prints, in ``folder``."""
    import contextlib
    import io

    program = card.split("```python\n")[1].split("```")[0]
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(program, {})
    return out.getvalue().strip()


def test_a_network_of_the_library_says_that_its_classes_are_yes_or_no(tmp_path: Path) -> None:
    words = {"red": "colour", "blue": "colour", "cat": "animal", "dog": "animal"}
    random = np.random.default_rng(0)
    rows = []
    for row in range(160):
        chosen = sorted(random.choice(list(words), size=row % 3, replace=False).tolist())
        rows.append({"text": " ".join(["the", *chosen]) + f" {row}", "label": sorted({words[word] for word in chosen})})
    path = write_jsonl(tmp_path / "texts.jsonl", rows)
    document = parse_spec(
        {
            "task": "text-classification",
            "dataset": {"source": "file:texts"},
            "teacher": {"architecture": network("bert", SMALL), "tokenizer": WORDPIECE, "training": {"max_steps": 40}},
            "student": {"architecture": network("bert", SMALL)},
            "training": {"max_steps": 60, "batch_size": 32},
        }
    ).model_dump(mode="json")
    assert isinstance(train(document, tmp_path / "job", {"file:texts": path}), Finished)
    folder = tmp_path / "job" / RESULT_FOLDER
    config = json.loads((folder / "student" / "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("multi_label_classification", {"0": "animal", "1": "colour"})

    classify = pipeline("text-classification", model=str(folder / "student"), top_k=None)
    told = {each["label"]: each["score"] for each in classify("the cat dog red blue 7")[0]}
    assert sum(told.values()) != pytest.approx(1.0, abs=1e-3), "not a softmax"
    loaded = load_network(folder / "student")
    reads = loaded.preprocessing
    with torch.no_grad():
        ours = loaded.network(reads(reads.prepare(["the cat dog red blue 7"])))[0].sigmoid()
    assert [told["animal"], told["colour"]] == pytest.approx(ours.tolist(), abs=1e-5)


def test_how_probable_each_class_is_is_learnt_as_it_is(digits: dict[str, Path], tmp_path: Path) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    document = spec(["votes"])
    document["dataset"]["class_names"] = {"votes": names}
    assert isinstance(train(document, tmp_path, digits), Finished)
    told = report(tmp_path)
    figures = told["student"]["metrics"]["votes"]
    assert told["data"]["label_kinds"] == {"votes": "probabilities"}
    assert figures["accuracy"] == told["student"]["test_accuracy"] > 0.7
    # No network loses less than the votes' own entropy, which one that is sure of a digit misses by far.
    assert 0.4 < figures["loss"] < 1.2
    assert json.loads((tmp_path / RESULT_FOLDER / "student" / "labels.json").read_text()) == names


@pytest.mark.parametrize(
    "document",
    [
        spec(["traits"], weight="trust", transfer="file:more", training=MIXED),
        spec(["votes"], weight="trust", training=MIXED, method={"name": "logit-standardization"}),
        spec(["label", "traits", "votes"], weight="trust", training=MIXED, method={"name": "multi-task"}),
    ],
    ids=["labels", "probabilities", "all kinds"],
)
def test_a_job_of_each_kind_resumes_exactly(document: dict[str, Any], digits: dict[str, Path], tmp_path: Path) -> None:
    document["teacher"]["training"] |= {"epochs": 1}
    assert isinstance(train(document, tmp_path / "whole", digits), Finished)
    assert train(document, tmp_path / "stopped", digits, stop_in="student") == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped", digits), Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    assert report(tmp_path / "stopped")["student"]["test_loss"] == report(tmp_path / "whole")["student"]["test_loss"]


def test_a_network_of_yeses_teaches_rows_without_labels_and_none_of_one_class(digits: dict[str, Path], tmp_path: Path) -> None:
    assert isinstance(train(spec(["traits"]), tmp_path / "first", digits), Finished)
    inputs = digits | {"file:unlabelled": digits["file:more"], "model:m": tmp_path / "first" / RESULT_FOLDER / "student"}
    given: Any = {"teacher": {"source": "model:m"}, "training": {"epochs": 6, "batch_size": 50}}

    unlabelled = spec(["traits"], **given) | {}
    unlabelled["dataset"] |= {"source": "file:unlabelled"}
    assert isinstance(train(unlabelled, tmp_path / "second", inputs), Finished)
    told = report(tmp_path / "second")
    assert told["data"]["label_kinds"] == {"traits": "labels"}
    assert told["agreement"] > 0.6

    for document, words in (
        (spec(["label"], **given), "its outputs are 'big', 'even', 'round'"),
        (
            unlabelled | {"method": parse_spec(spec(["traits"], method={"name": "dist"})).model_dump(mode="json")["method"]},
            "any number",
        ),
    ):
        failed = train(document, tmp_path / words[:8].replace("'", ""), inputs)
        assert isinstance(failed, Failed)
        assert words in failed.message


OF_BATCHES = {"distilbert", "embedding", *OF_TOKENS}
FITTING = [
    (target, name)
    for target, unfit in (("traits", "needs_classes"), ("votes", "reads_one_class"))
    for name, page in METHODS.items()
    if name not in OF_BATCHES and not getattr(page, unfit)
]
SIZES: dict[str, Any] = {"teacher-assistant": {"assistants": [{"name": "small-cnn", "width": 8}]}}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("target", "name"), FITTING)
def test_every_method_that_fits_lists_teaches_them(target: str, name: str, digits: dict[str, Path], tmp_path: Path) -> None:
    weight = "trust" if METHODS[name].weighs_rows else None
    training = {"epochs": 6, "batch_size": 50}
    changes: dict[str, Any] = {"teacher": {"architecture": {"name": "small-cnn", "width": 12}}} if name == "deep-mutual" else {}
    method = {"name": name} | SIZES.get(name, {})
    document = spec([target], weight=weight, training=training, method=method, **changes)
    last = train(document, tmp_path, digits)
    assert isinstance(last, Finished), last
    told = report(tmp_path)
    assert told["student"]["test_score"] > (0.5 if target == "traits" else 0.2)
    assert math.isfinite(told["agreement"])


def test_weights_that_a_method_would_not_heed_are_refused_by_the_worker_too(digits: dict[str, Path], tmp_path: Path) -> None:
    failed = train(spec(["label"], weight="trust", method={"name": "rkd"}), tmp_path, digits)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.details) == ("invalid_spec", {"pointer": "/dataset/weight"})
