"""A teacher that exists, fine-tuned before it teaches; what is told of one that is not, and what is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from service.model_facts import read_licence
from tests.integration.test_chain import report
from tests.integration.test_given_students import SHORT, TEACHER, run_job, spec
from tests.integration.test_given_teachers import named, warnings
from tests.unit.worker.preflight.jobs import normalised, refused
from worker.protocol import RESULT_FOLDER, Failed, Finished, PhaseStarted, Stopped

GENTLE = {
    "max_steps": 30,
    "batch_size": 32,
    "optimizer": {"name": "adamw", "learning_rate": 0.005},
    "schedule": {"name": "linear", "warmup_fraction": 0.1},
    "head_learning_rate": 0.02,
    "layer_decay": 0.9,
    "freeze": ["bert.embeddings.position_embeddings"],
}
NOTHING = {"max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-9}}


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A classifier with the data's classes that was never trained."""
    folder = tmp_path_factory.mktemp("ignorant")
    document = spec(texts, teacher=TEACHER | {"training": NOTHING}, student={"architecture": TEACHER["architecture"]})
    events = run_job(document | {"training": NOTHING}, folder)
    assert isinstance(events[-1], Finished), events[-1]
    return folder / RESULT_FOLDER / "teacher"


@pytest.fixture(scope="module")
def backbone(ignorant: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its body alone."""
    folder = tmp_path_factory.mktemp("backbone")
    AutoModel.from_pretrained(ignorant).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((ignorant / name).read_bytes())
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: house-licence\n---\n# A body\n", encoding="utf-8")
    return folder


def refused_untuned(texts: Path, teacher: Path, folder: Path) -> Failed:
    """What a check says of a job with this teacher and no training of it."""
    document = spec(texts, teacher={"source": "model:given"}, student={"architecture": TEACHER["architecture"]})
    return refused(normalised(document), folder, inputs={f"file:{texts}": texts, "model:given": teacher})


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_fine_tuned_teacher_is_scored_and_told_and_a_stop_in_its_training_changes_nothing(
    texts: Path, backbone: Path, tmp_path: Path
) -> None:
    document = spec(texts, teacher={"source": "model:given", "training": GENTLE}, evaluation={"control": True})
    whole = run_job(document, tmp_path / "whole", given=backbone)
    assert isinstance(whole[-1], Finished), whole[-1]
    assert run_job(document, tmp_path / "stopped", given=backbone, stop_in="the teacher")[-1] == Stopped("drain")
    resumed = run_job(document, tmp_path / "stopped", given=backbone)
    assert isinstance(resumed[-1], Finished)
    begun = [[event.message for event in events if isinstance(event, PhaseStarted)] for events in (whole, resumed)]
    assert [messages[0].partition(" the teacher,")[0] for messages in begun] == [
        "Fine-tuning",
        "Resuming at step 3 the fine-tuning of",
    ]
    for name in ("teacher", "student"):
        weights = [tmp_path / each / RESULT_FOLDER / name / "model.safetensors" for each in ("whole", "stopped")]
        assert len({sha256(path) for path in weights}) == 1

    told = report(tmp_path / "whole")
    teacher, ours = told["teacher"], told["student"]
    assert teacher["test_accuracy"] == teacher["validation_accuracy"] == 1.0
    assert teacher["training"]["steps"] == 30
    start: dict[str, Any] = {"source": "model:given", "revision": None, "head": "new", "dropped": [], "tuned": True}
    assert {"classifier.weight", "classifier.bias"} <= set(teacher["start"]["made"])
    assert {name: teacher["start"][name] for name in start} == start
    for name in ("teacher", "student"):
        assert read_licence(tmp_path / "whole" / RESULT_FOLDER / name) == "house-licence", name
    assert ours["start"] == told["control"]["start"] == teacher["start"]
    words = "model:given, fine-tuned, with a new head"
    assert f"<td>{words}</td>" in (tmp_path / "whole" / RESULT_FOLDER / "report.html").read_text(encoding="utf-8")
    assert f"The teacher comes from {words}." in (tmp_path / "whole" / RESULT_FOLDER / "README.md").read_text(encoding="utf-8")


def test_student_and_control_begin_with_the_same_new_head(texts: Path, backbone: Path, tmp_path: Path) -> None:
    events = run_job(spec(texts, training=NOTHING, evaluation={"control": True}), tmp_path / "job", given=backbone)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["student"]["test_loss"] == told["control"]["test_loss"]
    assert told["student"]["start"]["head"] == "new"


def test_a_teacher_that_is_not_tuned_and_worse_than_the_control_is_told_of_in_the_report_and_its_page(
    texts: Path, ignorant: Path, tmp_path: Path
) -> None:
    learns = {"max_steps": 40, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    document = spec(
        texts,
        teacher={"source": "model:given", "accept_score": "any"},
        student={"architecture": TEACHER["architecture"]},
        training=learns,
        evaluation={"control": True},
    )
    events = run_job(document, tmp_path / "job", given=ignorant)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["teacher"]["start"] == {
        "source": "model:given", "revision": None, "head": "kept", "made": [], "dropped": [], "tuned": False, "licence": None
    }  # fmt: skip
    message = warnings(events)["teacher_untuned"]
    assert message.startswith("The teacher model:given was not fine-tuned on these data, and its test score, 0.")
    assert {"code": "teacher_untuned", "message": message} in told["warnings"]
    assert message in (tmp_path / "job" / RESULT_FOLDER / "report.html").read_text(encoding="utf-8")
    assert "teacher_worse_than_control" not in warnings(events)


@pytest.mark.parametrize(
    ("saved_as", "words"),
    [
        ("BertModel", "is no text classifier, but a text encoder"),
        ("BertForMaskedLM", "is no text classifier, but a text encoder"),
        ("BertForSequenceClassification", "cannot teach as it is: model.safetensors lacks classifier.bias, classifier.weight"),
    ],
)
def test_a_body_without_a_head_does_not_teach_untuned(
    texts: Path, backbone: Path, tmp_path: Path, saved_as: str, words: str
) -> None:
    body = shutil.copytree(backbone, tmp_path / "body")
    config = json.loads((body / "config.json").read_text(encoding="utf-8"))
    (body / "config.json").write_text(json.dumps(config | {"architectures": [saved_as]}), encoding="utf-8")
    refusal = refused_untuned(texts, body, tmp_path)
    assert refusal.details["pointer"] == "/teacher/training"
    assert words in refusal.message
    assert "ive it a training at /teacher/training" in (refusal.hint or "")


def test_a_teacher_of_other_classes_is_refused_at_its_source_and_may_be_tuned(
    texts: Path, ignorant: Path, tmp_path: Path
) -> None:
    others = named(ignorant, tmp_path / "others", ["red", "green", "blue"])
    (others / "labels.json").unlink()
    refusal = refused_untuned(texts, others, tmp_path)
    assert "trained on other classes" in refusal.message
    assert refusal.details["pointer"] == "/teacher/source"
    assert "Or give it a training at /teacher/training" in (refusal.hint or "")


@pytest.mark.parametrize("place", ["teacher", "student"])
def test_a_new_head_is_not_frozen(texts: Path, backbone: Path, tmp_path: Path, place: str) -> None:
    training = SHORT | {"freeze": ["classifier"]}
    parts = (
        {"teacher": {"source": "model:given", "training": training}, "student": {"architecture": TEACHER["architecture"]}}
        if place == "teacher"
        else {"training": training}
    )
    (failed,) = run_job(spec(texts, **parts), tmp_path / "job", given=backbone)[-1:]
    assert isinstance(failed, Failed)
    path = "/teacher/training/freeze" if place == "teacher" else "/training/freeze"
    assert (failed.code, failed.details["pointer"]) == ("invalid_spec", path)
    assert "classifier.bias, classifier.weight was made anew" in failed.message
