"""Numbers as targets, from a spec to a student: of any mean and scale they are learned alike, and come back in their units."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from service.formats import Waveform
from service.spec import parse_spec
from tests.integration.test_given_teachers import SMALL
from tests.integration.test_methods import Recorder
from tests.integration.test_texts import network as transformers_network
from tests.unit.worker.models.test_language_network import USUAL
from worker.data import load_data
from worker.data.data_warnings import with_warnings
from worker.data.preprocessing import Preprocessing
from worker.errors import JobFault
from worker.export.folder import export_network
from worker.job.attempt import run
from worker.job.job_data import load_job_data
from worker.job.networks import Networks
from worker.job.number_units import standardise_by_teacher
from worker.job.roles import Role
from worker.models import save_network
from worker.models.loading import dtype_of
from worker.models.output_layer import find_output_layer
from worker.protocol import RESULT_FOLDER, Assignment, Failed, Finished, PhaseStarted, Stopped, StopRequest
from worker.tasks import TASKS, load_network

Numbers = dict[str, tuple[float, float]]
"""The mean and the deviation of each number, by target."""
PIXELS = 8
YEARS: Numbers = {"year": (1997.0, 5.6)}


def signal(count: int) -> Any:
    """(count, 2), each of mean 0 and deviation 1."""
    values = np.random.default_rng(0).normal(size=(count, 2))
    return (values - values.mean(axis=0)) / values.std(axis=0)


def write_images(path: Path, numbers: Numbers, *, count: int = 200, kind: bool = False) -> Path:
    """Images whose upper and lower halves are as bright as their first and second number say; their kind is the brighter half."""
    values = signal(count)
    images = np.random.default_rng(1).normal(size=(count, 1, PIXELS, PIXELS)) * 0.1
    images[:, 0, : PIXELS // 2] += values[:, :1, None]
    images[:, 0, PIXELS // 2 :] += values[:, 1:, None]
    arrays: dict[str, Any] = {"image": images.astype(np.float32)}
    for place, (name, (mean, deviation)) in enumerate(numbers.items()):
        arrays[name] = mean + deviation * values[:, place]
    if kind:
        arrays["kind"] = (values[:, 0] > values[:, 1]).astype(np.int64)
    parts = {"train": slice(0, count * 4 // 5), "test": slice(count * 4 // 5, count)}
    np.savez(path, **{f"{part}_{name}": each[rows] for part, rows in parts.items() for name, each in arrays.items()})
    return path


def spec(source: Path, targets: list[str], **changes: Any) -> dict[str, Any]:
    network = {"architecture": {"name": "small-cnn", "width": 4}}
    training = {"epochs": 10, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    document = {
        "task": "image-classification",
        "dataset": {"source": f"file:{source}", "targets": targets},
        "teacher": network | {"training": training},
        "student": network,
        "method": {"name": "soft-targets"},
        "evaluation": {"control": False},
        "training": training,
    }
    return parse_spec(document | changes).model_dump(mode="json")


def run_job(
    document: dict[str, Any],
    folder: Path,
    *,
    teacher: Path | None = None,
    cache: Path | None = None,
    recorder: Recorder | None = None,
) -> list[Any]:
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    inputs = {source: Path(source.removeprefix("file:"))} | ({"model:given": teacher} if teacher else {})
    recorder = recorder or Recorder()
    assignment = Assignment(job_id="job_test", spec=document, folder=folder, inputs=inputs, num_threads=1, cache=cache)
    run(assignment, recorder)
    return recorder.events


def finished(document: dict[str, Any], folder: Path, *, teacher: Path | None = None) -> dict[str, Any]:
    """The report of a job that succeeds."""
    events = run_job(document, folder, teacher=teacher)
    assert isinstance(events[-1], Finished), events[-1]
    report: dict[str, Any] = json.loads((folder / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
    return report


@torch.no_grad()
def predicted(folder: Path, inputs: Any) -> Tensor:
    """What a network of a result folder gives for stored inputs."""
    loaded = load_network(folder)
    reads: Preprocessing = loaded.preprocessing
    outputs: Tensor = loaded.network(reads(reads.prepare(inputs)))
    return outputs


@pytest.mark.parametrize("numbers", [{"year": (0.0, 1.0)}, YEARS, {"length": (3e-4, 1e-4)}, {"offset": (-1e7, 500.0)}], ids=str)
def test_a_number_of_any_mean_and_scale_is_learned_and_comes_back_in_its_own_unit(tmp_path: Path, numbers: Numbers) -> None:
    source, ((name, (_, deviation)),) = write_images(tmp_path / "images.npz", numbers), numbers.items()
    report = finished(spec(source, [name]), tmp_path / "job")
    assert report["teacher"]["test_score"] > 0.95
    assert report["student"]["test_score"] > 0.95

    arrays = np.load(source)
    for role in ("teacher", "student"):
        outputs = predicted(tmp_path / "job" / RESULT_FOLDER / role, torch.from_numpy(arrays["test_image"]))
        errors = (outputs[:, 0].double() - torch.from_numpy(arrays[f"test_{name}"])).abs()
        assert float(errors.mean()) == pytest.approx(report[role]["metrics"][name]["mae"], rel=0.01)
        assert float(errors.mean()) < deviation / 4
    labels = json.loads((tmp_path / "job" / RESULT_FOLDER / "student" / "labels.json").read_text(encoding="utf-8"))
    assert labels == {name: None}


def test_numbers_that_32_bit_floats_hardly_tell_apart_are_refused_and_learned_once_they_are_moved(tmp_path: Path) -> None:
    far = run_job(spec(write_images(tmp_path / "a.npz", {"stamp": (1.7e9, 60.0)}), ["stamp"]), tmp_path / "far")
    assert isinstance(far[-1], Failed)
    assert "'stamp' are around 1699999999 with a deviation of 60" in far[-1].message
    moved = 1.7e9 - float(far[-1].message.split("subtract ")[1].split()[0])
    near = finished(spec(write_images(tmp_path / "b.npz", {"stamp": (moved, 60.0)}), ["stamp"]), tmp_path / "near")
    assert near["student"]["test_score"] > 0.95


def test_two_numbers_and_a_class_are_each_learned_as_if_alone(tmp_path: Path) -> None:
    numbers = YEARS | {"price": (1e6, 1e5)}
    source, targets = write_images(tmp_path / "images.npz", numbers, kind=True), ["kind", *numbers]
    for method in ({"name": "multi-task"}, {"name": "distillation-network"}):
        report = finished(spec(source, targets, method=method), tmp_path / method["name"])
        metrics = report["student"]["metrics"]
        assert metrics["kind"]["accuracy"] > 0.9
        assert [metrics[name]["r2"] > 0.95 for name in numbers] == [True, True]
        assert metrics["year"]["mae"] < 2
        assert metrics["price"]["mae"] < 4e4
        assert report["agreement_by_target"]["price"]["mae"] < 4e4


GPT2_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
WORDS = {"cold": -2, "cool": -1, "mild": 0, "warm": 1, "hot": 2}


def write_texts(path: Path, *, mean: float, deviation: float, count: int = 200) -> Path:
    """Texts of two words, each worth as much as ``WORDS`` says, in an order that does not repeat."""
    draws = np.random.default_rng(0).choice(list(WORDS), size=(count, 2))
    rows = [{"text": " ".join(pair), "year": mean + deviation * sum(WORDS[word] for word in pair)} for pair in draws]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def of_texts(source: Path, student: dict[str, Any], **changes: Any) -> dict[str, Any]:
    training = {"max_steps": 80, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    network = {"architecture": student, "tokenizer": {"train": "wordpiece", "vocab_size": 60, "max_length": 8}}
    changes = {"task": "text-classification", "teacher": network | {"training": training}, "training": training} | changes
    return spec(source, ["year"], student=network, **changes)


GPT2 = transformers_network("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2} | dict.fromkeys(GPT2_DROPOUTS, 0.0))
LLAMA, BERT = transformers_network("llama", USUAL), transformers_network("bert", SMALL)


def test_a_text_network_without_a_bias_gives_years_by_its_last_norm_in_every_form(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "texts.jsonl", mean=1997, deviation=5.6)
    report = finished(of_texts(source, GPT2, exports=["onnx", "onnx-int8"]), tmp_path / "job")
    assert report["student"]["test_score"] > 0.95
    plain, small = report["exports"]
    assert plain["test_score"] == pytest.approx(report["student"]["test_score"], abs=1e-4)
    assert small["test_score"] > 0.9, "no range of 8 bits has an offset in it"

    folder = tmp_path / "job" / RESULT_FOLDER / "student"
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(["cold cool", "hot hot"], return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[:, 0]
    assert logits.tolist() == pytest.approx([1997 - 3 * 5.6, 1997 + 4 * 5.6], abs=6)
    answers = pipeline("text-classification", model=str(folder))(["cold cool", "hot hot"])
    assert [answer["score"] for answer in answers] == pytest.approx(logits.tolist()), "the library itself adds no sigmoid"
    session = onnxruntime.InferenceSession(folder.parent / "student.onnx", providers=["CPUExecutionProvider"])
    (exported,) = session.run(["logits"], {"input_ids": inputs["input_ids"].numpy()})
    assert exported[:, 0].tolist() == pytest.approx(logits.tolist(), abs=0.01)


def test_a_network_that_has_no_place_for_an_offset_is_refused_and_learns_the_numbers_once_they_are_moved(tmp_path: Path) -> None:
    far = run_job(of_texts(write_texts(tmp_path / "far.jsonl", mean=1997, deviation=5.6), LLAMA), tmp_path / "far")
    assert isinstance(far[-1], Failed)
    assert "numbers this far from 0: 'year' (mean 199" in far[-1].message
    assert far[-1].hint is not None
    assert "Subtract the mean from the column" in far[-1].hint
    assert "bert" in far[-1].hint
    near = finished(of_texts(write_texts(tmp_path / "near.jsonl", mean=0, deviation=5.6), LLAMA), tmp_path / "near")
    assert near["student"]["test_score"] > 0.95
    assert finished(of_texts(tmp_path / "far.jsonl", BERT), tmp_path / "bert")["student"]["test_score"] > 0.9


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images with years, and a teacher that was trained on them."""
    folder = tmp_path_factory.mktemp("years")
    source = write_images(folder / "images.npz", YEARS)
    finished(spec(source, ["year"], training={"max_steps": 1}), folder)
    return source, folder / RESULT_FOLDER / "teacher"


def test_a_given_teacher_of_numbers_teaches_data_of_another_mean_and_scale(tmp_path: Path, years: tuple[Path, Path]) -> None:
    source, given = years
    arrays = np.load(source)
    is_later = {part: arrays[f"{part}_year"] > 1997 for part in ("train", "test")}
    np.savez(tmp_path / "later.npz", **{name: arrays[name][is_later[name.split("_")[0]]] for name in arrays})

    document = spec(tmp_path / "later.npz", ["year"], teacher={"source": "model:given"})
    report = finished(document, tmp_path / "job", teacher=given)
    assert report["teacher"]["test_score"] > 0.9
    assert report["student"]["test_score"] > 0.9
    images = torch.from_numpy(arrays["test_image"][is_later["test"]])
    difference = (predicted(tmp_path / "job" / RESULT_FOLDER / "student", images) - predicted(given, images)).abs().mean()
    assert float(difference) == pytest.approx(report["agreement_by_target"]["year"]["mae"], rel=0.01)
    assert float(difference) < 1.5


def test_cached_outputs_of_a_teacher_of_numbers_serve_a_job_with_another_mean_and_scale(
    tmp_path: Path, years: tuple[Path, Path]
) -> None:
    source, given = years
    arrays = dict(np.load(source))
    arrays["train_year"] = np.where(arrays["train_year"] > 2000, arrays["train_year"], np.nan)
    np.savez(tmp_path / "some.npz", **arrays)
    for data, computed in ((source, "Computing"), (tmp_path / "some.npz", "Reading")):
        document = spec(data, ["year"], teacher={"source": "model:given"})
        events = run_job(document, tmp_path / computed, teacher=given, cache=tmp_path / "cache")
        assert [event.message.split()[0] for event in events if isinstance(event, PhaseStarted) and event.phase == "cache"] == [
            computed
        ]
        report = json.loads((tmp_path / computed / RESULT_FOLDER / "report.json").read_text(encoding="utf-8"))
        assert report["agreement_by_target"]["year"]["mae"] < 1


@pytest.mark.parametrize("labelled", [["test"], []], ids=["labelled test split", "no label at all"])
def test_years_that_no_training_row_has_are_learned_from_their_teacher_alone(
    tmp_path: Path, years: tuple[Path, Path], labelled: list[str]
) -> None:
    source, given = years
    arrays, told = dict(np.load(source)), np.load(source)["test_year"]
    for part in {"train", "test"} - set(labelled):
        arrays[f"{part}_year"] = np.full_like(arrays[f"{part}_year"], np.nan)
    np.savez(tmp_path / "unlabelled.npz", **arrays)
    document = spec(tmp_path / "unlabelled.npz", ["year"], teacher={"source": "model:given"})
    report = finished(document, tmp_path / "job", teacher=given)
    outputs = predicted(tmp_path / "job" / RESULT_FOLDER / "student", torch.from_numpy(arrays["test_image"]))[:, 0].numpy()
    errors = np.abs(outputs - told)
    assert errors.mean() < 1.5
    assert report["agreement"] > 0.97
    if labelled:
        assert errors.mean() == pytest.approx(report["student"]["metrics"]["year"]["mae"], rel=0.01)
    else:
        assert report["student"]["test_score"] is None


def test_two_labels_that_are_equal_do_not_tell_the_scale_of_what_a_teacher_predicts(
    tmp_path: Path, years: tuple[Path, Path]
) -> None:
    source, given = years
    arrays, loaded, factor = dict(np.load(source)), load_network(given), 1e4
    few = torch.from_numpy(arrays["test_image"][:2])
    layer = find_output_layer(loaded.network, loaded.preprocessing(loaded.preprocessing.prepare(few)))
    layer.rescale(torch.tensor([factor]), torch.tensor([0.0]))
    save_network(loaded.network, tmp_path / "teacher", preprocessing=loaded.preprocessing, targets=loaded.targets)
    arrays["test_year"] *= factor
    arrays["train_year"] = np.where(np.arange(len(arrays["train_year"])) < 2, 1997 * factor, np.nan)
    np.savez(tmp_path / "two.npz", **arrays)
    report = finished(
        spec(tmp_path / "two.npz", ["year"], teacher={"source": "model:given"}), tmp_path, teacher=tmp_path / "teacher"
    )
    assert report["student"]["test_score"] > 0.95


def test_few_labels_that_are_almost_equal_do_not_set_the_scale_of_what_a_teacher_predicts(
    tmp_path: Path, years: tuple[Path, Path]
) -> None:
    source, given = years
    arrays = dict(np.load(source))
    arrays["train_year"] = np.full_like(arrays["train_year"], np.nan)
    arrays["train_year"][:20] = [1997.0, 1997.5] * 10
    np.savez(tmp_path / "few.npz", **arrays)
    document = spec(tmp_path / "few.npz", ["year"], teacher={"source": "model:given"}, training={"max_steps": 1})
    data = load_data(parse_spec(document).dataset, tmp_path / "few.npz", task=TASKS["image-classification"])
    assert data.targets.each[0].scale == pytest.approx(0.25, rel=0.1)
    inputs = {"model:given": given}
    networks = Networks(parse_spec(document), data, device=torch.device("cpu"), inputs=inputs, scratch=tmp_path)
    standardise_by_teacher(networks)
    (target,) = networks.data.targets
    assert (target.scale, abs(target.mean - 1997) <= 4) == (4.0, True)
    labels = networks.data.splits["train"].labels[:, 0] * target.scale + target.mean
    assert set(labels[~labels.isnan()].round(decimals=2).tolist()) == {1997.0, 1997.5}
    outputs = networks.load_pretrained(Role("teacher")).outputs(data.splits["test"])
    assert float(outputs.abs().max()) < 6


def test_a_teacher_that_is_trained_and_one_that_is_given_teach_the_mean_of_their_numbers(
    tmp_path: Path, years: tuple[Path, Path]
) -> None:
    source, given = years
    document = spec(source, ["year"])
    document["teacher"] = [document["teacher"], {"source": "model:given"}]
    report = finished(parse_spec(document).model_dump(mode="json"), tmp_path / "job", teacher=given)
    assert [teacher["test_score"] > 0.95 for teacher in report["teachers"]] == [True, True]
    assert report["teacher"]["test_score"] > 0.95
    assert report["student"]["test_score"] > 0.95


def test_a_number_of_sound_is_learned_and_comes_back_in_its_own_unit(tmp_path: Path) -> None:
    values = signal(80)[:, 0]
    clips = [0.1 * np.exp(value / 2) * np.random.default_rng(index).normal(size=800) for index, value in enumerate(values)]
    files = []
    for clip in clips:
        soundfile.write(buffer := io.BytesIO(), clip.clip(-1, 1), 8000, format="WAV", subtype="FLOAT")
        files.append({"bytes": buffer.getvalue(), "path": None})
    source = tmp_path / "clips.parquet"
    pq.write_table(pa.table({"audio": files, "year": 1997 + 5.6 * values}), source)
    network = {
        "architecture": {"name": "small-cnn", "width": 4},
        "features": {"name": "log-mel", "mels": 16},
    }
    training = {"max_steps": 120, "batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    report = finished(
        spec(
            source,
            ["year"],
            task="audio-classification",
            teacher=network | {"training": training},
            student=network,
            training=training,
        ),
        tmp_path / "job",
    )
    assert report["student"]["test_score"] > 0.9
    heard = [Waveform(clip.astype(np.float32), 8000) for clip in clips]
    outputs = predicted(tmp_path / "job" / RESULT_FOLDER / "student", heard)[:, 0].numpy()
    assert np.abs(outputs - (1997 + 5.6 * values)).mean() == pytest.approx(report["student"]["metrics"]["year"]["mae"], rel=0.5)


def test_a_student_that_begins_with_its_teachers_layers_begins_at_its_teachers_numbers(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "texts.jsonl", mean=1997, deviation=5.6)
    finished(of_texts(source, GPT2, training={"max_steps": 1}), tmp_path / "first")
    given = tmp_path / "first" / RESULT_FOLDER / "teacher"
    # As the library alone saves it: one output, called LABEL_0.
    (given / "labels.json").unlink()
    AutoConfig.from_pretrained(given, id2label={0: "LABEL_0"}).save_pretrained(given)
    training = {"max_steps": 1, "optimizer": {"name": "adamw", "learning_rate": 1e-9}}
    document = of_texts(source, GPT2, teacher={"source": "model:given"}, training=training)
    document["student"] |= {"source": "teacher-layers", "tokenizer": None}
    report = finished(document, tmp_path / "second", teacher=given)
    assert report["agreement_by_target"]["year"]["mae"] < 0.01
    assert report["teacher"]["test_score"] > 0.9


class Cancelled(Recorder):
    """Cancels the job once the student has done some steps."""

    def stop_request(self) -> StopRequest | None:
        return StopRequest("cancel", keep="last") if super().stop_request() else None


def test_what_a_cancelled_job_keeps_of_its_student_gives_numbers_in_their_own_unit(tmp_path: Path) -> None:
    source = write_images(tmp_path / "images.npz", YEARS)
    assert run_job(spec(source, ["year"]), tmp_path, recorder=Cancelled(stop_at=2))[-1] == Stopped("cancel")
    years = predicted(tmp_path / RESULT_FOLDER / "student", torch.from_numpy(np.load(source)["test_image"]))
    assert 1960 < float(years.min()) < float(years.max()) < 2030


def test_a_killed_job_of_numbers_ends_with_the_same_student(tmp_path: Path) -> None:
    source = write_images(tmp_path / "images.npz", YEARS)
    document = spec(source, ["year"], training={"max_steps": 12, "batch_size": 16})
    for name, stop_at in (("whole", None), ("parts", 4), ("parts", None)):
        last = run_job(document, tmp_path / name, recorder=Recorder(stop_at=stop_at))[-1]
        assert isinstance(last, Stopped if stop_at else Finished)
    whole, parts = ((tmp_path / name / RESULT_FOLDER / "student/model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_ratings_that_look_like_classes_are_learned_from_a_teacher_of_numbers_once_they_are_declared(
    tmp_path: Path, years: tuple[Path, Path]
) -> None:
    source, given = years
    arrays = dict(np.load(source))
    for part in ("train", "test"):
        arrays[f"{part}_year"] = np.arange(len(arrays[f"{part}_year"])) % 6.0
    np.savez(tmp_path / "ratings.npz", **arrays)
    found = {}
    for numbers in ([], ["year"]):
        document = spec(tmp_path / "ratings.npz", ["year"], teacher={"source": "model:given"})
        document["dataset"]["numbers"] = numbers
        job = parse_spec(document)
        data = with_warnings(load_data(job.dataset, tmp_path / "ratings.npz", task=TASKS[job.task]), job, task=TASKS[job.task])
        networks = Networks(job, data, device=torch.device("cpu"), inputs={"model:given": given}, scratch=tmp_path)
        found[len(numbers)] = data, networks
    as_classes, networks = found[0]
    assert as_classes.targets.classes == ["0", "1", "2", "3", "4", "5"]
    (told,) = [warning.message for warning in as_classes.warnings if warning.code == "labels_from_floats"]
    assert told.endswith("name 'year' in the spec's dataset.numbers")
    with pytest.raises(JobFault):
        networks.load_pretrained(Role("teacher"))
    as_numbers, networks = found[1]
    assert as_numbers.targets.each[0].classes is None
    assert "labels_from_floats" not in {warning.code for warning in as_numbers.warnings}
    outputs = networks.load_pretrained(Role("teacher")).outputs(as_numbers.splits["test"])
    assert outputs.shape == (len(as_numbers.splits["test"]), 1)


@pytest.mark.parametrize(("dtype", "gpus"), [(torch.float32, 1), (torch.bfloat16, 0)], ids=["on a GPU", "in bf16 files"])
@pytest.mark.parametrize("kind", [False, True])
def test_a_given_teachers_numbers_keep_their_digits_unless_a_format_is_asked_for(
    tmp_path: Path, dtype: torch.dtype, gpus: int, kind: bool
) -> None:
    source = write_images(tmp_path / "images.npz", YEARS, kind=kind)
    own = {"architecture": {"name": "small-cnn", "width": 4}, "accept_score": "any"}
    given = {"source": "model:given", "accept_score": "any"}
    document = spec(source, ["year", "kind"] if kind else ["year"], teacher=own)
    folder, inputs = tmp_path / "given", {document["dataset"]["source"]: source, "model:given": tmp_path / "given"}

    def networks(teacher: dict[str, Any]) -> Networks:
        parsed = parse_spec(document | {"teacher": teacher, "resources": {"gpus": gpus}})
        data = load_job_data(parsed, inputs)
        return Networks(parsed, data, device=torch.device("cpu"), inputs=inputs, scratch=tmp_path)

    role, made = Role("teacher"), networks(own)
    export_network(made.as_trained(role, made.build(role)), folder, data=made.data)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for asked, taken in (("auto", torch.float32), ("bf16", torch.bfloat16)):
        assert dtype_of(networks(given | {"dtype": asked}).load_pretrained(role).network) is taken
