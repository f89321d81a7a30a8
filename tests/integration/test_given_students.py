"""Students, and fine-tuned teachers, that begin with a network that exists: their heads, their controls, their resumption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from service.spec import parse_spec
from service.spec.inputs import TokenizerSpec
from tests.integration.test_chain import StopIn, report
from tests.integration.test_given_teachers import SMALL, warnings
from tests.integration.test_methods import student
from tests.integration.test_texts import WORDPIECE, network
from tests.unit.worker.models.test_gguf_folder import network as tiny_network
from tests.unit.worker.models.test_gguf_folder import write as write_gguf
from worker.data.text.texts import train_text_preprocessing
from worker.job.attempt import run
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Failed, Finished, Stopped
from worker.sources.cache import NetworkCache
from worker.sources.conversion import plain_folder

TEACHER = {"architecture": network("bert", SMALL), "tokenizer": WORDPIECE | {"vocab_size": 200}}
SHORT = {"max_steps": 4, "batch_size": 16}


def run_job(
    document: dict[str, Any],
    folder: Path,
    *,
    given: Path | None = None,
    teacher: Path | None = None,
    stop_in: str | None = None,
    check_only: bool = False,
    **parts: Any,
) -> list[Any]:
    """Runs, or checks, a job whose networks ``model:given`` and ``model:teacher`` are these folders."""
    folder.mkdir(exist_ok=True)
    document = parse_spec(document).model_dump(mode="json")
    source = document["dataset"]["source"]
    named = {"model:given": given, "model:teacher": teacher, source: Path(source.removeprefix("file:"))}
    inputs = {name: path for name, path in named.items() if path is not None}
    recorder = StopIn(stop_in)
    (check if check_only else run)(
        Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1, **parts), recorder
    )
    return recorder.events


def spec(texts: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "text-classification",
        "dataset": {"source": f"file:{texts}"},
        "teacher": TEACHER | {"training": SHORT},
        "student": {"source": "model:given"},
        "training": SHORT,
    } | changes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A classifier of the data."""
    folder = tmp_path_factory.mktemp("trained")
    training = {"max_steps": 50, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    document = spec(texts, teacher=TEACHER | {"training": training}, student={"architecture": network("bert", SMALL)})
    events = run_job(document | {"training": {"max_steps": 1}}, folder)
    assert isinstance(events[-1], Finished), events[-1]
    return folder / RESULT_FOLDER / "teacher"


@pytest.fixture
def backbone(trained: Path, tmp_path: Path) -> Path:
    """The same body beside the head of a masked language model."""
    folder = tmp_path / "backbone"
    model = AutoModelForMaskedLM.from_pretrained(trained)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((trained / name).read_bytes())
    return folder


def test_a_student_that_knows_the_classes_keeps_its_head_and_so_does_its_control(
    texts: Path, trained: Path, tmp_path: Path
) -> None:
    tiny = SHORT | {"optimizer": {"name": "adamw", "learning_rate": 1e-9}}
    events = run_job(spec(texts, training=tiny, evaluation={"control": True}), tmp_path / "job", given=trained)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["student"]["test_accuracy"] == told["control"]["test_accuracy"] == 1.0
    assert told["student"]["architecture"] == {"name": "transformers", "model_type": "bert", "config": {}}
    assert not {"head_made", "head_mapped", "outputs_dropped"} & warnings(events).keys()


def test_a_backbone_gets_a_head_and_a_stop_in_its_training_changes_nothing(texts: Path, backbone: Path, tmp_path: Path) -> None:
    document = spec(texts, evaluation={"control": True})
    whole = run_job(document, tmp_path / "whole", given=backbone)
    assert isinstance(whole[-1], Finished), whole[-1]
    assert "classifier.weight" in warnings(whole)["head_made"]
    assert "cls.predictions" in warnings(whole)["head_made"]
    assert run_job(document, tmp_path / "stopped", given=backbone, stop_in="the student")[-1] == Stopped("drain")
    assert isinstance(run_job(document, tmp_path / "stopped", given=backbone)[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    assert report(tmp_path / "stopped")["gain"] == report(tmp_path / "whole")["gain"]


def test_a_given_teacher_is_fine_tuned_before_it_teaches(texts: Path, backbone: Path, tmp_path: Path) -> None:
    training = {"max_steps": 40, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    teacher = {"source": "model:given", "training": training}
    events = run_job(spec(texts, teacher=teacher), tmp_path / "job", given=backbone)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["teacher"]["test_accuracy"] > 0.9
    assert told["teacher"]["source"] == "model:given"
    assert len([code for code in warnings(events) if code == "head_made"]) == 1


def test_a_check_builds_a_given_student_and_tells_what_became_of_its_head(texts: Path, backbone: Path, tmp_path: Path) -> None:
    (checked,) = run_job(spec(texts, evaluation={"control": True}), tmp_path / "job", given=backbone, check_only=True)[-1:]
    assert isinstance(checked, Checked), checked
    estimate = checked.estimate
    assert estimate["parameters"]["student"] == estimate["parameters"]["control"] == estimate["parameters"]["teacher"]
    assert estimate["memory_gib"] > 0
    assert [each["message"] for each in estimate["warnings"] if each["code"] == "head_made"]


def test_a_check_refuses_a_student_that_cannot_be_loaded_at_its_place(texts: Path, backbone: Path, tmp_path: Path) -> None:
    (backbone / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    failed = run_job(spec(texts), tmp_path / "job", given=backbone, check_only=True)[-1]
    assert isinstance(failed, Failed), failed
    assert failed.details["pointer"] == "/student/source"
    assert "is no text classifier that is trained here" in failed.message


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_a_check_tries_a_network_that_another_job_is_still_to_train(texts: Path, tmp_path: Path, part: str) -> None:
    planned = {"job:job_other": parse_spec(spec(texts, student={"architecture": network("bert", SMALL)})).model_dump(mode="json")}
    source = {"source": "job:job_other"}
    changes = {"student": source} if part == "student" else {"teacher": source | {"training": SHORT}}
    document = spec(texts, student={"architecture": network("bert", SMALL)}) | changes
    checked = run_job(document, tmp_path / "job", check_only=True, planned=planned)[-1]
    assert isinstance(checked, Checked), checked
    assert checked.estimate["memory_by_training_gib"].keys() == {"teacher", "student"}
    assert checked.estimate["notes"] == []


def test_what_is_away_or_begins_with_a_network_in_turn_is_noted_by_the_check(texts: Path, tmp_path: Path) -> None:
    planned = {"job:job_other": parse_spec(spec(texts)).model_dump(mode="json")}
    student = run_job(spec(texts, student={"source": "job:job_other"}), tmp_path / "job", check_only=True, planned=planned)[-1]
    assert isinstance(student, Checked), student
    assert any("still to be trained" in note for note in student.estimate["notes"])
    teacher = {"source": "hub:a/b", "training": SHORT}
    away = {"hub:a/b": "The Hub is away."}
    document = spec(texts, teacher=teacher, student={"architecture": network("bert", SMALL)})
    tuned = run_job(document, tmp_path / "other", check_only=True, away=away)[-1]
    assert isinstance(tuned, Checked), tuned
    assert any("The Hub is away." in note for note in tuned.estimate["notes"])


GPT2: dict[str, Any] = {"n_layer": 1, "n_embd": 16, "n_head": 2}


def language_model(folder: Path, *, vocabulary: int | None = None, positions: int = 16, tokens: int = 300, seed: int = 0) -> Path:
    """A causal language model in a folder, with a tokenizer of so many tokens and an embedding that is ``vocabulary`` wide."""
    texts = ["one and two make three", "four and five make nine"]
    reads = train_text_preprocessing(texts, TokenizerSpec(train="bpe", vocab_size=tokens, max_length=positions))
    size = vocabulary or len(reads.tokenizer)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=positions, bos_token_id=0, eos_token_id=0, **GPT2))
    model.save_pretrained(folder)
    reads.save(folder, input_shape=reads.input_shape([]))
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    ones = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    lines = [json.dumps({"text": f"{a} and {b} and {c}"}) for a in ones[:4] for b in ones[:4] for c in ones[:3]]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def language_spec(sums: Path, method: str = "forward-kl", **changes: Any) -> dict[str, Any]:
    return {
        "task": "causal-lm",
        "dataset": {"source": f"file:{sums}"},
        "teacher": {"source": "model:teacher", "accept_score": "any"},
        "student": {"source": "model:given"},
        "method": {"name": method},
        "training": {"max_steps": 3, "batch_size": 4},
    } | changes


@pytest.mark.parametrize("tuned", [False, True])
def test_language_models_of_one_tokenizer_read_rows_of_one_length_whatever_their_padding(
    sums: Path, tmp_path: Path, tuned: bool
) -> None:
    given = language_model(tmp_path / "student", vocabulary=320, positions=12)
    teacher = language_model(tmp_path / "teacher", vocabulary=304, positions=16, seed=1)
    teacher_spec = {"source": "model:teacher", "training": {"max_steps": 2, "batch_size": 4}}
    changes: dict[str, Any] = {"teacher": teacher_spec} if tuned else {}
    document = language_spec(sums, evaluation={"control": True}, **changes)
    events = run_job(document, tmp_path / "job", given=given, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    told = report(tmp_path / "job")
    assert told["agreement"] is not None
    assert told["student"]["metrics"]["next token"]["perplexity"] > 1
    saved = AutoTokenizer.from_pretrained(tmp_path / "job" / RESULT_FOLDER / "student")
    assert saved.model_max_length == 12


@pytest.mark.parametrize(
    ("method", "packing", "pointer"), [("forward-kl", None, "/method"), ("uld", "packed", "/dataset/packing")]
)
@pytest.mark.parametrize("check_only", [False, True])
def test_language_models_of_two_tokenizers_are_refused_where_tokens_are_compared(
    sums: Path, tmp_path: Path, method: str, packing: str | None, pointer: str, check_only: bool
) -> None:
    given, teacher = language_model(tmp_path / "student", tokens=280), language_model(tmp_path / "teacher")
    document = language_spec(sums, method, dataset={"source": f"file:{sums}"} | ({"packing": packing} if packing else {}))
    failed = run_job(document, tmp_path / "job", given=given, teacher=teacher, check_only=check_only)[-1]
    assert isinstance(failed, Failed), failed
    assert failed.details["pointer"] == pointer


def test_language_models_of_two_tokenizers_are_compared_text_by_text(sums: Path, tmp_path: Path) -> None:
    given, teacher = language_model(tmp_path / "student", tokens=280), language_model(tmp_path / "teacher")
    events = run_job(language_spec(sums, "uld"), tmp_path / "job", given=given, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    assert report(tmp_path / "job")["agreement"] is None


def test_a_network_of_llama_cpp_is_student_and_teacher_and_leaves_a_plain_folder(sums: Path, tmp_path: Path) -> None:
    given = write_gguf(tmp_path / "gguf" / "tiny.gguf", tiny_network())
    document = language_spec(sums, dataset={"source": f"file:{sums}", "row_tokens": 16})
    with plain_folder(given, source="model:given", cache=NetworkCache(tmp_path / "cache", max_bytes=2**30)) as plain:
        checked = run_job(document, tmp_path / "check", given=plain, teacher=plain, check_only=True)[-1]
        assert isinstance(checked, Checked), checked
        events = run_job(document, tmp_path / "job", given=plain, teacher=plain)
    assert isinstance(events[-1], Finished), events[-1]
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "job" / RESULT_FOLDER / "student")
    assert student.config.model_type == "qwen2"
