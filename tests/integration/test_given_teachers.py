"""Teachers that this job does not train: their classes are found by name, and what cannot be told is refused with a remedy."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from service.spec import parse_spec
from tests.integration.feelings import CLASSES, write_texts
from tests.integration.test_methods import Recorder
from tests.integration.test_texts import BERT, WORDPIECE, network
from worker.job.attempt import run
from worker.models.reported import read_reported
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Failed, Finished, PhaseStarted, Stopped, Warned

SMALL = BERT | {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}


def spec(texts: Path, **changes: Any) -> dict[str, Any]:
    document = {
        "task": "text-classification",
        "dataset": {"source": f"file:{texts}"},
        "teacher": {"source": "model:given"},
        "student": {"architecture": network("bert", SMALL)},
        "training": {"max_steps": 4, "batch_size": 16},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def run_job(
    document: dict[str, Any], folder: Path, *, teacher: Path | None = None, stop_at: int | None = None, check_only: bool = False
) -> list[Any]:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))} | ({"model:given": teacher} if teacher else {})
    recorder = Recorder(stop_at=stop_at)
    assignment = Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1)
    if check_only:
        check(assignment, recorder)
    else:
        run(assignment, recorder)
    return recorder.events


def warnings(events: list[Any]) -> dict[str, str]:
    """Messages by code."""
    return {event.code: event.message for event in events if isinstance(event, Warned)}


def write_card(folder: Path, **figures: float) -> None:
    """A model card that reports these figures, as the Hub's cards do."""
    results = [
        {
            "task": {"type": "text-classification"},
            "dataset": {"name": "feelings", "type": "feelings"},
            "metrics": [{"type": name, "value": value} for name, value in figures.items()],
        }
    ]
    card = yaml.safe_dump({"license": "mit", "model-index": [{"name": "given", "results": results}]})
    (folder / "README.md").write_text(f"---\n{card}---\n\n# A teacher\n", encoding="utf-8")


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A teacher that tells the three feelings apart, as its library saves it."""
    folder = tmp_path_factory.mktemp("trained")
    training = {"max_steps": 50, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    teacher = {
        "architecture": network("bert", SMALL),
        "tokenizer": WORDPIECE | {"vocab_size": 200},
        "training": training,
    }
    events = run_job(spec(texts, teacher=teacher, training={"max_steps": 1}), folder)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(folder)["teacher"]["test_accuracy"] == 1.0
    made = folder / RESULT_FOLDER / "teacher"
    (made / "labels.json").unlink()
    return made


def named(trained: Path, folder: Path, names: list[str], *, order: list[int] | None = None) -> Path:
    """The teacher with other names, and with its outputs in the ``order`` of these indices."""
    shutil.copytree(trained, folder)
    write_names(folder, names)
    weights = load_file(folder / "model.safetensors")
    order = order or list(range(len(CLASSES)))
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_names(folder: Path, names: list[str]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["SADNESS", "JOY", "ANGER"], [2, 1, 0]),
        (["joy", "Sadness", "anger"], [1, 2, 0]),
        (["LABEL_7", "sadness", "anger", "LABEL_9", "joy"], [0, 2, 0, 0, 1]),
    ],
    ids=["upper case", "another order", "more classes"],
)
def test_its_classes_are_found_by_name(tmp_path: Path, texts: Path, trained: Path, names: list[str], order: list[int]) -> None:
    teacher = named(trained, tmp_path / "teacher", names, order=order)
    events = run_job(spec(texts), tmp_path / "job", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["teacher"]["test_accuracy"] == 1.0
    assert report(tmp_path / "job")["data"]["classes"] == CLASSES
    told = {"teacher_outputs_unused"} if len(names) > len(CLASSES) else set()
    assert (
        {warning["code"] for warning in report(tmp_path / "job")["warnings"]}
        >= told
        == warnings(events).keys() & {"teacher_outputs_unused"}
    )
    if told:
        assert "'LABEL_7', 'LABEL_9'" in warnings(events)["teacher_outputs_unused"]


def test_a_student_that_begins_with_its_layers_begins_with_its_classes(tmp_path: Path, texts: Path, trained: Path) -> None:
    teacher = named(trained, tmp_path / "teacher", ["SADNESS", "ANGER", "JOY"], order=[2, 0, 1])
    student = {"source": "teacher-layers", "architecture": network("bert", SMALL)}
    nothing = {"max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-9}}
    events = run_job(spec(texts, student=student, training=nothing), tmp_path / "job", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["student"]["test_accuracy"] == 1.0


def test_classes_that_are_numbers_are_found_by_number(tmp_path: Path, trained: Path) -> None:
    teacher = named(trained, tmp_path / "teacher", ["2", "1", "0"], order=[2, 1, 0])
    numbers = write_texts(tmp_path / "numbers.jsonl", classes=["0", "1", "2"])
    events = run_job(spec(numbers), tmp_path / "job", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["teacher"]["test_accuracy"] == 1.0


@pytest.mark.parametrize("by_hand", [True, False], ids=["config.json", "AutoConfig"])
def test_outputs_without_names_are_refused_and_the_remedy_mends_them(
    tmp_path: Path, texts: Path, trained: Path, by_hand: bool
) -> None:
    teacher = named(trained, tmp_path / "teacher", ["LABEL_0", "LABEL_1", "LABEL_2"])
    *_, last = run_job(spec(texts), tmp_path / "job", teacher=teacher)
    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("invalid_spec", False)
    assert "its outputs are 'LABEL_0', 'LABEL_1', 'LABEL_2', the dataset has 'anger', 'joy', 'sadness'" in last.message
    told = '"id2label": {"0": "anger", "1": "joy", "2": "sadness"}'
    assert last.hint is not None
    assert told in last.hint

    config = teacher / "config.json"
    if by_hand:
        document = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps(document | json.loads(f"{{{told}}}")), encoding="utf-8")
    else:
        AutoConfig.from_pretrained(teacher, id2label=dict(enumerate(CLASSES))).save_pretrained(teacher)
    events = run_job(spec(texts), tmp_path / "mended", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "mended")["teacher"]["test_accuracy"] == 1.0


def of_type(folder: Path, problem_type: str | None) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": problem_type}), encoding="utf-8")


@pytest.mark.parametrize(
    ("problem_type", "words"),
    [
        (
            "multi_label_classification",
            "has a class by itself, a yes or no through a sigmoid, at its output 'anger', the dataset a class",
        ),
        ("regression", "has a number at its output 'anger', the dataset a class"),
    ],
)
def test_outputs_that_are_no_classes_are_refused_before_anything_trains_and_the_remedy_mends_them(
    tmp_path: Path, texts: Path, trained: Path, problem_type: str, words: str
) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES)
    of_type(teacher, problem_type)
    own = {"architecture": network("bert", SMALL), "tokenizer": WORDPIECE, "training": {"max_steps": 1}}
    *_, last = run_job(spec(texts, teacher=[own, {"source": "model:given"}]), tmp_path / "job", teacher=teacher)
    assert isinstance(last, Failed)
    assert words in last.message
    assert '"problem_type": "single_label_classification"' in f"{last.message} {last.hint}"

    of_type(teacher, "single_label_classification")
    events = run_job(spec(texts), tmp_path / "mended", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "mended")["teacher"]["test_accuracy"] == 1.0


def test_a_number_is_not_learned_from_the_output_of_a_class_of_its_name(tmp_path: Path, texts: Path, trained: Path) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES)
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text("\n".join(json.dumps({"text": row["text"], "joy": 0.5 * (row["label"] == "joy")}) for row in rows))
    document = spec(numbers, dataset={"source": f"file:{numbers}", "targets": ["joy"]})
    *_, last = run_job(document, tmp_path / "job", teacher=teacher)
    assert isinstance(last, Failed)
    assert "has a class at its output 'joy', the dataset a number" in last.message

    assert last.hint is not None
    assert '"problem_type": "regression"' in last.hint
    of_type(teacher, "regression")
    document["teacher"]["accept_score"] = "any"  # it was trained on classes
    events = run_job(document, tmp_path / "mended", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]


@pytest.mark.parametrize("names", [["anger", "joy", "rage"], ["anger", "joy"], ["Anger", "ANGER", "joy", "sadness"]])
def test_a_class_that_it_lacks_or_has_twice_is_refused(tmp_path: Path, texts: Path, trained: Path, names: list[str]) -> None:
    teacher = named(trained, tmp_path / "teacher", names, order=[0, 1, 2, 2][: len(names)])
    *_, last = run_job(spec(texts), tmp_path / "job", teacher=teacher)
    assert isinstance(last, Failed)
    assert "sadness" in last.message
    assert all(repr(name) in last.message for name in names)


@pytest.mark.parametrize("check_only", [True, False], ids=["in the check", "as the attempt's first phase"])
def test_a_teacher_at_chance_stops_the_job_before_anything_is_trained(
    tmp_path: Path, texts: Path, trained: Path, check_only: bool
) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES, order=[1, 2, 0])
    *before, last = run_job(spec(texts), tmp_path / "job", teacher=teacher, check_only=check_only)
    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("teacher_unfit", False)
    assert "no better than a constant guess: it has 0.0% of" in last.message
    assert last.details["pointer"] == "/teacher"
    assert last.details["finding"] == "teacher_at_chance"
    assert last.hint is not None
    assert "id2label" in last.hint
    assert "accept_score to 'any'" in last.hint
    assert check_only or [event.phase for event in before if isinstance(event, PhaseStarted)] == ["teacher"]


def test_a_teacher_at_chance_teaches_where_the_spec_accepts_any_score(tmp_path: Path, texts: Path, trained: Path) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES, order=[1, 2, 0])
    document = spec(texts, teacher={"source": "model:given", "accept_score": "any"})
    (checked,) = (
        event for event in run_job(document, tmp_path / "check", teacher=teacher, check_only=True) if isinstance(event, Checked)
    )
    assert any("no better than a constant guess" in warning["message"] for warning in checked.estimate["warnings"])
    stopped = run_job(document, tmp_path / "job", teacher=teacher, stop_at=2)
    assert stopped[-1] == Stopped("drain")
    assert "no better than a constant guess" in warnings(stopped)["teacher_at_chance"]

    resumed = run_job(document, tmp_path / "job", teacher=teacher)
    assert isinstance(resumed[-1], Finished), resumed[-1]
    scored = [event for event in resumed if isinstance(event, PhaseStarted) and event.message.startswith("Scoring")]
    assert not scored, "the first attempt's score is in its checkpoint"
    assert "teacher_at_chance" not in warnings(resumed), "the first attempt told it"
    assert "teacher_at_chance" in {warning["code"] for warning in report(tmp_path / "job")["warnings"]}
    assert "teacher_at_chance" in {warning["code"] for warning in resumed[-1].result["warnings"]}
    assert report(tmp_path / "job")["teacher"]["validation_accuracy"] == 0.0


@pytest.mark.parametrize("figures", [{"accuracy": 0.99}, {"accuracy": 99.0, "f1": 0.3}])
def test_a_teacher_far_below_its_card_stops_the_job(
    tmp_path: Path, texts: Path, trained: Path, figures: dict[str, float]
) -> None:
    """Two of three classes are swapped: a third of the rows is right, as a constant guess has it, of too few rows to tell."""
    teacher = named(trained, tmp_path / "teacher", CLASSES, order=[1, 0, 2])
    assert isinstance(run_job(spec(texts), tmp_path / "without", teacher=teacher)[-1], Finished)
    write_card(teacher, **figures)
    last = run_job(spec(texts), tmp_path / "job", teacher=teacher)[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["finding"], last.details["reported"]) == ("teacher_unfit", "teacher_below_its_card", 0.99)
    assert "far below what its card reports (accuracy 0.99)" in last.message
    for accepted in ("above-chance", "any"):
        document = spec(texts, teacher={"source": "model:given", "accept_score": accepted})
        events = run_job(document, tmp_path / accepted, teacher=teacher)
        assert isinstance(events[-1], Finished), events[-1]
        assert "teacher_below_its_card" in warnings(events)


@pytest.mark.parametrize(
    "card",
    [
        "no front matter",
        "---\nmodel-index: 3\n---\n",
        "---\n: {[\n---\n",
        "---\nmodel-index:\n- name: x\n  results:\n  - metrics: [{type: accuracy, value: high}]\n---\n",
    ],
)
def test_a_card_that_reports_nothing_to_compare_is_no_obstacle(tmp_path: Path, texts: Path, trained: Path, card: str) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES)
    (teacher / "README.md").write_text(card, encoding="utf-8")
    assert isinstance(run_job(spec(texts), tmp_path / "job", teacher=teacher, check_only=True)[-1], Checked)


def test_a_student_is_measured_by_what_its_own_job_reported(tmp_path: Path, texts: Path, trained: Path) -> None:
    document = spec(texts, training={"max_steps": 50, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}})
    assert isinstance(run_job(document, tmp_path / "first", teacher=trained)[-1], Finished)
    student = tmp_path / "first" / RESULT_FOLDER / "student"
    assert read_reported(student) == {"accuracy": report(tmp_path / "first")["student"]["test_accuracy"]}
    write_names(student, ["joy", "anger", "sadness"])
    (student / "labels.json").unlink()
    last = run_job(spec(texts), tmp_path / "second", teacher=student)[-1]
    assert isinstance(last, Failed)
    assert last.details["finding"] == "teacher_below_its_card"


def test_a_teacher_is_not_scored_where_validation_has_no_labels_and_that_is_told(
    tmp_path: Path, texts: Path, trained: Path
) -> None:
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    for index, row in enumerate(rows):
        row["split"] = ("validation", "test", "train", "train")[index // 3 % 4]
        row["label"] = None if row["split"] == "validation" else row["label"]
    path = tmp_path / "unlabelled.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    teacher = named(trained, tmp_path / "teacher", CLASSES, order=[1, 2, 0])
    events = run_job(spec(path), tmp_path / "job", teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert "no labels" in warnings(events)["teacher_unscored"]


def test_each_of_several_teachers_is_scored(tmp_path: Path, texts: Path, trained: Path) -> None:
    teacher = named(trained, tmp_path / "teacher", CLASSES, order=[1, 2, 0])
    own = {"architecture": network("bert", SMALL), "tokenizer": WORDPIECE, "training": {"max_steps": 2}}
    last = run_job(spec(texts, teacher=[own, {"source": "model:given"}]), tmp_path / "job", teacher=teacher)[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("teacher_unfit", "/teacher/1")


def test_a_teacher_that_is_trained_here_and_stays_at_chance_is_a_warning_before_the_student(tmp_path: Path) -> None:
    training = {"max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-9}}
    teacher = {"architecture": {"name": "small-cnn", "width": 4}, "training": training}
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": teacher,
        "student": {"architecture": {"name": "small-cnn", "width": 2}},
        "training": {"max_steps": 2},
    }
    events = run_job(parse_spec(document).model_dump(mode="json"), tmp_path / "job")
    assert isinstance(events[-1], Finished), events[-1]
    kinds = [
        event.phase if isinstance(event, PhaseStarted) else event.code
        for event in events
        if isinstance(event, PhaseStarted | Warned)
    ]
    assert kinds.index("teacher") < kinds.index("teacher_at_chance") < kinds.index("student")
    assert (
        "The teacher that this job trained is not shown to be better than a constant guess"
        in warnings(events)["teacher_at_chance"]
    )

    strict = parse_spec(document | {"teacher": teacher | {"accept_score": "above-chance"}}).model_dump(mode="json")
    last = run_job(strict, tmp_path / "strict")[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("teacher_unfit", "/teacher")
