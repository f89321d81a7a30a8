"""Teachers in number formats: how they answer otherwise is measured, and what does not fit is refused at its place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.spec import parse_spec
from tests.integration.feelings import CLASSES
from tests.integration.test_given_teachers import SMALL, named
from tests.integration.test_given_teachers import spec as spec_of_texts
from tests.integration.test_methods import Recorder, student
from tests.integration.test_numbers import YEARS, write_images
from tests.integration.test_texts import WORDPIECE, network
from worker.job.attempt import run
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Failed, Finished, PhaseStarted, Stopped, Warned

WIDE = SMALL | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A classifier that knows the texts, of layers that int4 has groups for."""
    folder = tmp_path_factory.mktemp("trained")
    own = {
        "architecture": network("bert", WIDE),
        "tokenizer": WORDPIECE,
        "training": {"max_steps": 60, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.003}},
    }
    last = train(spec_of_texts(texts, teacher=own, training={"max_steps": 1}), folder).events[-1]
    assert isinstance(last, Finished), last
    return folder / RESULT_FOLDER / "teacher"


def train(
    document: dict[str, Any],
    folder: Path,
    *,
    teacher: Path | None = None,
    cache: Path | None = None,
    stop_at: int | None = None,
    check_only: bool = False,
) -> Recorder:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))} | ({"model:given": teacher} if teacher else {})
    recorder = Recorder(stop_at=stop_at)
    spec = parse_spec(document).model_dump(mode="json")
    assignment = Assignment(job_id="job_test", spec=spec, folder=folder, inputs=inputs, num_threads=1, cache=cache)
    (check if check_only else run)(assignment, recorder)
    return recorder


def given(texts: Path, dtype: str, **changes: Any) -> dict[str, Any]:
    return spec_of_texts(texts, teacher={"source": "model:given", "dtype": dtype}, **changes)


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
    return document


def asked(recorder: Recorder) -> bool:
    """Whether the teacher's outputs were computed rather than read from the cache."""
    told = [event.message for event in recorder.events if isinstance(event, PhaseStarted) and event.phase == "cache"]
    return any(message.startswith("Computing") for message in told)


def test_a_teacher_in_each_format_teaches_and_its_difference_is_told(tmp_path: Path, texts: Path, teacher: Path) -> None:
    cards = {}
    for dtype in ("auto", "bf16", "fp16", "int8", "int4"):
        recorder = train(
            given(texts, dtype, method={"name": "fitnet"}), tmp_path / dtype, teacher=teacher, cache=tmp_path / "cache"
        )
        assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
        assert asked(recorder), "what another format answered is not taken for this one's"
        cards[dtype] = report(tmp_path / dtype)["teacher"]
    assert cards["auto"]["dtype"] is None
    for dtype in ("bf16", "fp16", "int8", "int4"):
        card = cards[dtype]["dtype"]
        assert (card["format"], card["files"], card["rows"]) == (dtype, "fp32", 24)
        assert 0 < card["largest_difference"] < 0.2
        assert card["agreement"] == 1.0
        assert 0 < card["kl_divergence"] < 0.01
        assert cards[dtype]["test_accuracy"] == cards["auto"]["test_accuracy"] == 1.0
        assert cards[dtype]["parameters"] == cards["auto"]["parameters"]
    assert cards["int4"]["dtype"]["bytes"] < cards["int8"]["dtype"]["bytes"] < cards["bf16"]["dtype"]["bytes"]
    assert (cards["int8"]["dtype"]["layers"], cards["int8"]["dtype"]["layers_left_out"]) == (12, 2)
    again = train(given(texts, "int8", method={"name": "fitnet"}), tmp_path / "again", teacher=teacher, cache=tmp_path / "cache")
    assert not asked(again)


def test_files_of_bf16_are_held_as_they_are_and_nothing_is_measured(tmp_path: Path, texts: Path, teacher: Path) -> None:
    folder = named(teacher, tmp_path / "half", CLASSES)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert isinstance(train(given(texts, "auto"), tmp_path / "job", teacher=folder).events[-1], Finished)
    card = report(tmp_path / "job")["teacher"]
    assert (card["dtype"]["format"], card["dtype"]["files"], card["dtype"]["rows"]) == ("bf16", "bf16", None)
    assert card["dtype"]["bytes"] == pytest.approx(card["bytes"], rel=0.1)


def test_a_format_that_changes_the_answers_is_told(tmp_path: Path, texts: Path, teacher: Path) -> None:
    folder = named(teacher, tmp_path / "spoilt", CLASSES)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if ".layer." in name and weight.dim() == 2:
            # One large weight in each row takes the whole range of the row's integers.
            weight[:, 0] = 300.0 * (-1.0) ** torch.arange(len(weight))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    document = given(texts, "int8")
    document["teacher"]["accept_score"] = "any"
    recorder = train(document, tmp_path / "job", teacher=folder)
    told = {event.code: event.message for event in recorder.events if isinstance(event, Warned)}
    assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    assert "answers otherwise in int8 than in fp32" in told["dtype_difference"]
    assert "dtype_difference" in {each["code"] for each in report(tmp_path / "job")["warnings"]}


def test_a_teacher_that_a_format_does_not_fit_is_refused_before_it_waits(tmp_path: Path, texts: Path) -> None:
    own = {"architecture": network("bert", SMALL), "tokenizer": WORDPIECE, "training": {"max_steps": 1}}
    assert isinstance(train(spec_of_texts(texts, teacher=own), tmp_path / "made").events[-1], Finished)
    narrow = tmp_path / "made" / RESULT_FOLDER / "teacher"
    last = train(given(texts, "int4"), tmp_path / "job", teacher=narrow, check_only=True).events[-1]
    assert isinstance(last, Failed)
    assert (last.code, last.details["pointer"]) == ("preflight_failed", "/teacher/dtype")
    assert "int4 changes nothing: take bf16" in last.message


def test_int4_for_a_gpu_without_its_kernels_is_refused_before_it_waits(tmp_path: Path, texts: Path, teacher: Path) -> None:
    document = given(texts, "int4", resources={"gpus": 1})
    last = train(document, tmp_path / "job", teacher=teacher, check_only=True).events[-1]
    assert isinstance(last, Failed)
    assert last.details["pointer"] == "/teacher/dtype"
    assert "mslk" in last.message


def test_the_estimate_has_the_weights_in_their_formats(tmp_path: Path, texts: Path, teacher: Path) -> None:
    def parts(name: str, dtype: str, weights: str) -> dict[str, float]:
        document = given(texts, dtype, student=IN_BF16 | {"weights": weights}, training=STEPS)
        last = train(document, tmp_path / name, teacher=teacher, check_only=True).events[-1]
        assert isinstance(last, Checked), last
        found: dict[str, float] = last.estimate["memory_parts_gib"]["student"]
        assert sum(found.values()) == pytest.approx(last.estimate["memory_by_training_gib"]["student"])
        return found

    wide, narrow = parts("wide", "auto", "fp32"), parts("narrow", "int4", "bf16")
    assert narrow["teachers"] < 0.4 * wide["teachers"]
    for part in ("weights", "optimizer"):
        assert narrow[part] == pytest.approx(0.5 * wide[part], rel=0.1), "places of tokens are integers in both"


IN_BF16: dict[str, Any] = {"architecture": network("bert", WIDE), "tokenizer": WORDPIECE, "weights": "bf16"}
STEPS = {"max_steps": 10, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.003}}


@pytest.mark.parametrize(
    "name", ["adamw", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("sgd", "adafactor", "muon", "adamw-8bit"))]
)
def test_a_student_in_bf16_learns_and_resumes_exactly(tmp_path: Path, texts: Path, teacher: Path, name: str) -> None:
    document = given(texts, "auto", student=IN_BF16, training=STEPS | {"optimizer": {"name": name, "learning_rate": 0.003}})
    assert document["training"]["precision"] == "bf16"
    assert isinstance(train(document, tmp_path / "whole", teacher=teacher).events[-1], Finished)
    assert train(document, tmp_path / "stopped", teacher=teacher, stop_at=4).events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped", teacher=teacher).events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / RESULT_FOLDER / "student" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.bfloat16}


def test_a_student_in_bf16_comes_out_in_each_form_and_so_does_its_control(tmp_path: Path, texts: Path, teacher: Path) -> None:
    document = given(
        texts,
        "int8",
        student=IN_BF16,
        training=STEPS,
        exports=["onnx"],
        evaluation={"control": True, "correct_bias": True},
    )
    recorder = train(document, tmp_path / "job", teacher=teacher)
    assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    card = report(tmp_path / "job")
    for role in ("student", "control"):
        assert card[role]["dtype"]["format"] == "bf16"
        assert card[role]["dtype"]["bytes"] == 2 * card[role]["parameters"]
    assert card["exports"][0]["agreement"] == 1.0
    config = json.loads((tmp_path / "job" / RESULT_FOLDER / "student" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    taught = spec_of_texts(texts, teacher={"source": "model:given", "accept_score": "any"}, training={"max_steps": 1})
    again = train(taught, tmp_path / "again", teacher=tmp_path / "job" / RESULT_FOLDER / "student")
    assert isinstance(again.events[-1], Finished), again.events[-1]
    assert report(tmp_path / "again")["teacher"]["test_score"] == card["student"]["test_score"]


def test_a_student_in_bf16_begins_with_layers_or_a_network_that_exists(tmp_path: Path, texts: Path, teacher: Path) -> None:
    nothing = {"max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-9}}
    for name, start in (
        ("layers", {"source": "teacher-layers", "architecture": network("bert", WIDE), "weights": "bf16"}),
        ("given", {"source": "model:given", "weights": "bf16"}),
    ):
        document = given(texts, "auto", student=start, training=nothing)
        assert isinstance(train(document, tmp_path / name, teacher=teacher).events[-1], Finished)
        assert report(tmp_path / name)["student"]["test_accuracy"] == 1.0


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["bf16", "int8", "auto"])
def test_an_adapter_in_bf16_resumes_exactly_and_is_merged_within_rounding(
    tmp_path: Path, texts: Path, teacher: Path, dtype: str
) -> None:
    own = {"source": "model:given", "weights": "bf16", "adapter": {"name": "lora"}}
    document = given(texts, dtype, student=own, training=STEPS, evaluation={"control": True})
    last = train(document, tmp_path / "whole", teacher=teacher).events[-1]
    assert isinstance(last, Finished), last
    assert train(document, tmp_path / "stopped", teacher=teacher, stop_at=4).events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped", teacher=teacher).events[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")


def test_a_student_that_bf16_is_too_coarse_for_is_refused_before_it_waits(tmp_path: Path) -> None:
    cnn = {"name": "resnet8x4"}
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 2}},
        "student": {"architecture": cnn, "weights": "bf16"},
    }
    folder = tmp_path / "job"
    folder.mkdir()
    recorder = Recorder(stop_at=None)
    check(
        Assignment(job_id="job_test", spec=parse_spec(document).model_dump(mode="json"), folder=folder, num_threads=1), recorder
    )
    last = recorder.events[-1]
    assert isinstance(last, Failed)
    assert last.details["pointer"] == "/student/weights"
    assert "batch norms" in last.message


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("bf16", torch.float32)])
def test_numbers_in_a_short_format_are_compared_with_fp32_though_the_files_hold_no_more(
    tmp_path: Path, dtype: str, stored: torch.dtype
) -> None:
    source = write_images(tmp_path / "years.npz", YEARS)
    small = {"architecture": {"name": "small-cnn", "width": 4}}
    document: dict[str, Any] = {
        "task": "image-classification",
        "dataset": {"source": f"file:{source}", "targets": ["year"]},
        "teacher": small | {"training": {"max_steps": 4, "batch_size": 16}, "accept_score": "any"},
        "student": small,
        "training": {"max_steps": 2, "batch_size": 16},
    }
    assert isinstance(train(document, tmp_path / "made").events[-1], Finished)
    folder = tmp_path / "made" / RESULT_FOLDER / "teacher"
    weights = {name: tensor.to(stored) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    document["teacher"] = {"source": "model:given", "dtype": dtype, "accept_score": "any"}
    last = train(document, tmp_path / "job", teacher=folder).events[-1]
    assert isinstance(last, Finished), last
    card = report(tmp_path / "job")["teacher"]["dtype"]
    assert (card["format"], card["compared_with"]) == (dtype, "fp32")
    assert card["rows"] > 0
    assert card["largest_difference"] > 0
