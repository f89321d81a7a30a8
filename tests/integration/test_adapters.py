"""Jobs that train adapters of networks that exist: what they leave; that they resume exactly; that a base stays as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from service.model_facts import read_licence
from service.spec import parse_spec
from tests.integration.test_chain import StopIn, report
from tests.integration.test_given_teachers import SMALL, warnings
from tests.integration.test_methods import student
from tests.integration.test_numbers import YEARS, write_images
from tests.integration.test_texts import WORDPIECE, network
from worker.export.folder import export_network
from worker.job.attempt import run
from worker.job.job_data import load_job_data
from worker.job.networks import Networks
from worker.job.roles import STUDENT, Role
from worker.models.adapters import adapter_of
from worker.preflight import check
from worker.protocol import CHECKPOINT_FILE, RESULT_FOLDER, Assignment, Checked, Failed, Finished, PhaseStarted, Stopped
from worker.tasks import load_network
from worker.training.checkpoint import read_checkpoint

VIT = network(
    "vit", {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 4}
)
LORA = {"name": "lora", "rank": 2}
SHORT = {"max_steps": 4, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
GIVEN = "model:given"


def spec(**changes: Any) -> dict[str, Any]:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"source": GIVEN},
        "student": {"source": GIVEN, "adapter": LORA},
        "training": SHORT,
    }
    return parse_spec(document | changes).model_dump(mode="json")


def train(document: dict[str, Any], folder: Path, given: Path, *, stop_in: str | None = None) -> list[Any]:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    inputs = {GIVEN: given} | ({source: Path(source.removeprefix("file:"))} if source.startswith("file:") else {})
    recorder = StopIn(stop_in)
    run(Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder.events


def write_base(document: dict[str, Any], folder: Path) -> Path:
    """An untrained teacher of the document as a folder, as if it had been trained elsewhere."""
    made = parse_spec(document)
    source = made.dataset.source
    inputs = {source: Path(source.removeprefix("file:"))}
    networks = Networks(made, load_job_data(made, inputs), device=torch.device("cpu"), inputs=inputs, scratch=folder)
    torch.manual_seed(0)
    role = Role("teacher")
    export_network(networks.as_trained(role, networks.build(role)), folder, data=networks.data)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the digits."""
    folder = tmp_path_factory.mktemp("base")
    return write_base(spec(teacher={"architecture": VIT, "accept_score": "any"}), folder)


def test_a_job_leaves_the_adapter_and_the_student_with_it_merged(base: Path, tmp_path: Path) -> None:
    teacher = {"source": GIVEN, "accept_score": "any"}
    document = spec(teacher=teacher, evaluation={"control": True}, exports=["onnx", "onnx-int8"])
    events = train(document, tmp_path / "job", base)
    assert isinstance(events[-1], Finished), events[-1]
    result, told = tmp_path / "job" / RESULT_FOLDER, report(tmp_path / "job")
    card = told["student"]["adapter"]
    assert (card["variant"], card["rank"], card["targets"]) == ("lora", 2, 12)
    assert card["largest_difference"] < 1e-5
    assert card["bytes"] == (result / "adapter" / "adapter_model.safetensors").stat().st_size
    assert told["student"]["parameters"] == told["teacher"]["parameters"]
    assert [export["name"] for export in told["exports"]] == ["student.onnx", "student.int8.onnx"]
    assert "lora of rank 2" in (result / "report.html").read_text()
    assert "trained as an adapter (lora of rank 2" in (result / "README.md").read_text()
    assert not (result / "control-adapter").exists()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_new_head_is_in_the_adapter_whose_card_says_how_to_load_it(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = spec(
        task="text-classification",
        dataset={"source": f"file:{texts}"},
        teacher={"architecture": network("bert", SMALL), "tokenizer": WORDPIECE | {"vocab_size": 200}, "training": SHORT},
        method={"name": "fitnet", "layers": {"student": ["bert.encoder.layer.0"], "teacher": ["bert.encoder.layer.0"]}},
    )
    trained = write_base(document, tmp_path / "base")
    AutoModelForMaskedLM.from_pretrained(trained).save_pretrained(tmp_path / "base")
    events = train(document, tmp_path / "job", trained)
    assert isinstance(events[-1], Finished), events[-1]
    assert "classifier.weight" in warnings(events)["head_made"]
    monkeypatch.chdir(tmp_path / "job" / RESULT_FOLDER)
    card = Path("adapter/README.md").read_text()
    program = card.partition("```python\n")[2].partition("```")[0]
    assert "num_labels=3, ignore_mismatched_sizes=True" in program
    loaded: dict[str, Any] = {}
    assert f"`base` is the folder of {GIVEN}" in card
    exec(program.replace("'base'", repr(str(trained))), loaded)
    ids = torch.tensor([[2, 7, 9, 11, 3]])
    with torch.no_grad():
        outputs = loaded["network"](ids).logits
        merged = AutoModelForSequenceClassification.from_pretrained("student")(ids).logits
    torch.testing.assert_close(outputs, merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["small-cnn", "resnet8x4"])
def test_the_card_of_an_adapter_of_our_own_network_replaces_the_layer_that_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    made = {"architecture": {"name": architecture}, "accept_score": "any"}
    trained = write_base(spec(teacher=made), tmp_path / "base")
    (trained / "README.md").write_text("---\nlicense: mit\n---\n")
    images = np.random.default_rng(0).integers(0, 17, (90, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "kinds.npz", image=images, label=np.arange(90) % 3)
    document = spec(dataset={"source": f"file:{tmp_path / 'kinds.npz'}"}, teacher=made | {"training": SHORT})
    events = train(document, tmp_path / "job", trained)
    assert isinstance(events[-1], Finished), events[-1]
    monkeypatch.chdir(tmp_path / "job" / RESULT_FOLDER)
    assert read_licence(Path("adapter")) == read_licence(Path("student")) == "mit"
    program = Path("adapter/README.md").read_text().partition("```python\n")[2].partition("```")[0]
    loaded: dict[str, Any] = {}
    exec(program.replace("'base'", repr(str(trained))), loaded)
    pixels = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        merged = load_network(Path("student")).network(pixels)
        torch.testing.assert_close(loaded["network"](pixels), merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_an_adapter_resumes_exactly_from_a_checkpoint_of_itself_alone(base: Path, tmp_path: Path, weights: str) -> None:
    adapter = LORA | {"variant": "dora", "dropout": 0.2}
    document = spec(teacher={"source": GIVEN, "accept_score": "any"}, student={"source": GIVEN, "adapter": adapter})
    document["student"]["weights"] = weights
    assert isinstance(train(document, tmp_path / "whole", base)[-1], Finished)
    assert train(document, tmp_path / "stopped", base, stop_in="the student")[-1] == Stopped("drain")
    _, state = read_checkpoint(tmp_path / "stopped" / CHECKPOINT_FILE)["unfinished"]
    assert state["network"]
    assert all("lora_" in name for name in state["network"])
    assert isinstance(train(document, tmp_path / "stopped", base)[-1], Finished)
    assert student(tmp_path / "stopped") == student(tmp_path / "whole")
    file = Path(RESULT_FOLDER, "adapter", "adapter_model.safetensors")
    assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_teacher_is_tuned_as_an_adapter_but_for_its_frozen_layers(base: Path, tmp_path: Path) -> None:
    teacher = {"source": GIVEN, "adapter": LORA | {"variant": "rslora"}, "training": SHORT | {"freeze": ["vit.layers.0"]}}
    events = train(spec(teacher=teacher, student={"architecture": VIT}), tmp_path / "job", base)
    assert isinstance(events[-1], Finished), events[-1]
    result, told = tmp_path / "job" / RESULT_FOLDER, report(tmp_path / "job")
    assert told["teacher"]["adapter"]["variant"] == "rslora"
    assert told["student"]["adapter"] is None
    weights = load_file(result / "teacher-adapter" / "adapter_model.safetensors")
    updates = {name: bool(weight.any()) for name, weight in weights.items() if "lora_B" in name}
    assert [updates[name] for name in updates] == [".layers.1." in name for name in updates]  # those of a frozen layer stay none
    assert not (result / "adapter").exists()


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_a_student_begins_with_the_layers_of_a_teacher_that_is_tuned_as_an_adapter(
    base: Path, tmp_path: Path, variant: str
) -> None:
    teacher = {"source": GIVEN, "accept_score": "any", "training": SHORT, "adapter": LORA | {"variant": variant}}
    shallow = VIT | {"config": VIT["config"] | {"num_hidden_layers": 1}}
    document = spec(teacher=teacher, student={"architecture": shallow, "source": "teacher-layers"})
    events = train(document, tmp_path / "job", base)
    assert isinstance(events[-1], Finished), events[-1]


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"targets": ["to_q"]}, "no module 'to_q'; name one or more of"),
        ({"targets": ["layernorm_before"]}, "LayerNorm"),
    ],
)
def test_a_target_that_is_not_there_fails_the_job_before_anything_is_trained(
    base: Path, tmp_path: Path, adapter: dict[str, Any], words: str
) -> None:
    document = spec(teacher={"architecture": VIT, "training": SHORT}, student={"source": GIVEN, "adapter": LORA | adapter})
    *before, failed = train(document, tmp_path / "job", base)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.details["pointer"]) == ("invalid_spec", "/student/adapter/targets")
    assert words in failed.message
    assert not [event for event in before if isinstance(event, PhaseStarted)]


def test_a_new_head_beside_an_adapter_may_not_be_frozen(texts: Path, tmp_path: Path) -> None:
    document = spec(
        task="text-classification",
        dataset={"source": f"file:{texts}"},
        teacher={"architecture": network("bert", SMALL), "tokenizer": WORDPIECE | {"vocab_size": 200}, "training": SHORT},
        training=SHORT | {"freeze": ["classifier"]},
    )
    trained = write_base(document, tmp_path / "base")
    AutoModelForMaskedLM.from_pretrained(trained).save_pretrained(tmp_path / "base")
    failed = train(document, tmp_path / "job", trained)[-1]
    assert isinstance(failed, Failed)
    assert failed.details["pointer"].startswith("/training/freeze")
    assert "made anew" in failed.message


@pytest.mark.parametrize("freeze", [["vit"], ["vit.layers.*"]])
@pytest.mark.parametrize("classes", [10, 3])
def test_all_layers_of_an_adapter_may_not_be_frozen_which_is_told_before_anything_is_trained(
    base: Path, tmp_path: Path, freeze: list[str], classes: int
) -> None:
    images = np.random.default_rng(0).integers(0, 17, (90, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "kinds.npz", image=images, label=np.arange(90) % classes)
    document = spec(
        dataset={"source": f"file:{tmp_path / 'kinds.npz'}"},
        teacher={"architecture": VIT, "training": SHORT},
        training=SHORT | {"freeze": freeze},
    )
    *before, failed = train(document, tmp_path / "job", base)
    assert isinstance(failed, Failed), failed
    assert (failed.code, failed.details["pointer"]) == ("invalid_spec", "/training/freeze")
    assert not [event for event in before if isinstance(event, PhaseStarted)]


@pytest.mark.parametrize("place", ["student", "teacher"])
def test_a_rate_for_a_head_that_an_adapter_leaves_as_it_is_has_no_effect_and_is_refused(
    base: Path, tmp_path: Path, place: str
) -> None:
    rated = SHORT | {"head_learning_rate": 0.1}
    if place == "student":
        document = spec(teacher={"architecture": VIT, "training": SHORT}, training=rated)
    else:
        document = spec(teacher={"source": GIVEN, "adapter": LORA, "training": rated}, student={"architecture": VIT})
    *before, failed = train(document, tmp_path / "job", base)
    assert isinstance(failed, Failed), failed
    pointer = {"student": "/training/head_learning_rate", "teacher": "/teacher/training/head_learning_rate"}[place]
    assert (failed.code, failed.details["pointer"]) == ("invalid_spec", pointer)
    assert "the adapter does not update it" in failed.message
    assert not [event for event in before if isinstance(event, PhaseStarted)]


def test_teacher_and_student_of_one_source_have_their_base_in_memory_once(base: Path, tmp_path: Path) -> None:
    made = parse_spec(spec(teacher={"source": GIVEN, "accept_score": "any"}))
    networks = Networks(made, load_job_data(made, {}), device=torch.device("cpu"), inputs={GIVEN: base}, scratch=tmp_path)
    teacher, split = networks.load_pretrained(Role("teacher")), networks.data.splits["validation"]
    before = teacher.outputs(split)
    adapted = networks.build(STUDENT)
    theirs = {weight.data_ptr() for weight in teacher.network.parameters()}
    assert theirs == {weight.data_ptr() for weight in adapted.parameters() if not weight.requires_grad}
    adapter = adapter_of(adapted)
    assert adapter is not None
    weights = {name: torch.ones_like(tensor) for name, tensor in adapted.state_dict().items() if name in adapter.names}
    trained = networks.trained_network(STUDENT, weights)
    assert not torch.equal(trained.outputs(split), before)
    assert torch.equal(teacher.outputs(split), before)


def test_numbers_are_in_the_units_of_the_data_with_the_adapter_as_with_it_merged(tmp_path: Path) -> None:
    source = f"file:{write_images(tmp_path / 'years.npz', YEARS)}"
    document = spec(
        dataset={"source": source, "targets": ["year"]},
        teacher={"architecture": VIT, "training": SHORT},
        student={"source": GIVEN, "adapter": LORA},
    )
    events = train(document, tmp_path / "job", write_base(document, tmp_path / "base"))
    assert isinstance(events[-1], Finished), events[-1]
    card = report(tmp_path / "job")["student"]
    assert card["metrics"]["year"]["mae"] < 10  # of years around 1997
    assert card["adapter"]["largest_difference"] < 1e-5


def test_statistics_of_a_networks_norms_are_not_the_adapters_and_stay(tmp_path: Path) -> None:
    made = write_base(spec(teacher={"architecture": {"name": "resnet8x4"}, "accept_score": "any"}), tmp_path / "base")
    teacher = {"source": GIVEN, "accept_score": "any"}
    events = train(spec(teacher=teacher, method={"name": "similarity-preserving"}), tmp_path / "job", made)
    assert isinstance(events[-1], Finished), events[-1]
    theirs, ours = (load_file(folder / "model.safetensors") for folder in (made, tmp_path / "job" / RESULT_FOLDER / "student"))
    norms = [name for name in theirs if "running_" in name]
    assert norms
    assert all(torch.equal(theirs[name], ours[name]) for name in norms)
    assert any(not torch.equal(theirs[name], ours[name]) for name in theirs)


@pytest.mark.parametrize("adapter", [LORA, None])
def test_a_base_that_is_too_large_to_be_tried_counts_once(base: Path, tmp_path: Path, adapter: dict[str, Any] | None) -> None:
    document = spec(teacher={"source": GIVEN, "accept_score": "any"}, student={"source": GIVEN, "adapter": adapter})
    recorder = StopIn(None)
    assignment = Assignment(job_id="job_test", spec=document, folder=tmp_path, inputs={GIVEN: base}, most_bytes=1000)
    check(assignment, recorder)
    checked = recorder.events[-1]
    assert isinstance(checked, Checked), checked
    parts, whole = checked.estimate["memory_parts_gib"]["student"], checked.estimate["parameters"]["student"] * 4 / 2**30
    assert parts["teachers"] == pytest.approx(whole)
    # What the student changes, and its best weights beside them.
    assert parts["weights"] == pytest.approx(2 * whole) if adapter is None else parts["weights"] < 2 * whole / 3
