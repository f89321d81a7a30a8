"""A student that begins with a network of other outputs, and a teacher that is fine-tuned from one, of every kind of input."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForMaskedLM

from service.spec import parse_spec
from tests.integration import test_embeddings as embeddings
from tests.integration import test_sound as sound
from tests.integration import test_token_classification as words
from tests.integration.test_chain import report
from tests.integration.test_embeddings import teacher as encoder_teacher
from tests.integration.test_given_teachers import warnings
from tests.integration.test_methods import Recorder
from tests.integration.test_token_classification import rows
from tests.unit.worker.models.kinds import kind_of
from tests.unit.worker.models.test_build import tiny
from tests.unit.worker.models.test_folder import GREY
from worker.job.attempt import run
from worker.models import build_network, save_network
from worker.preflight import check
from worker.protocol import RESULT_FOLDER, Assignment, Checked, Finished
from worker.targets import Targets
from worker.tasks import load_network

__all__ = ["encoder_teacher", "rows"]

GIVEN = {"source": "model:given"}
SHORT = {"max_steps": 3, "batch_size": 16}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def run_job(document: dict[str, Any], folder: Path, inputs: dict[str, Path]) -> list[Any]:
    """Checks the job, and runs it; the events are those of the run."""
    folder.mkdir(exist_ok=True)
    source = document["dataset"]["source"]
    files = inputs | ({source: Path(source.removeprefix("file:"))} if source.startswith("file:") else {})
    spec = parse_spec(document).model_dump(mode="json")
    checked, ran = Recorder(), Recorder()
    check(Assignment("job_test", spec, folder, inputs=files, num_threads=1, check_only=True), checked)
    assert isinstance(checked.events[-1], Checked), checked.events[-1]
    run(Assignment("job_test", spec, folder, inputs=files, num_threads=1), ran)
    assert isinstance(ran.events[-1], Finished), ran.events[-1]
    return ran.events


def test_an_image_classifier_of_other_labels_is_headed_anew(tmp_path: Path) -> None:
    architecture = tiny("vit")
    network = build_network(architecture, kind=kind_of(architecture), input_shape=(1, 8, 8), num_outputs=3)
    save_network(network, tmp_path / "given", preprocessing=GREY, targets=Targets.of_classes(["ant", "bee", "cat"]))
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": GIVEN | {"training": SHORT},
        "student": GIVEN,
        "training": SHORT,
    }
    events = run_job(document, tmp_path / "job", {"model:given": tmp_path / "given"})
    assert "its outputs are ant, bee, cat" in warnings(events)["head_made"]
    student = load_network(tmp_path / "job" / RESULT_FOLDER / "student")
    assert student.classes == [str(digit) for digit in range(10)]
    assert report(tmp_path / "job")["teacher"]["parameters"] == report(tmp_path / "job")["student"]["parameters"]


def test_a_network_that_tells_digits_by_their_sound_learns_to_tell_voices(
    spoken_digits: Path, voices: Path, tmp_path: Path
) -> None:
    first = sound.spec(spoken_digits, {}, teacher=sound.CNN, student=sound.WAV2VEC2)
    assert isinstance(sound.train(first, tmp_path / "first").events[-1], Finished)
    given = tmp_path / "first" / RESULT_FOLDER
    document = {
        "task": "audio-classification",
        "dataset": {"source": f"file:{voices}", "targets": ["voice"]},
        "teacher": {"source": "model:cnn", "training": SHORT},
        "student": GIVEN,
        "training": SHORT,
    }
    events = run_job(document, tmp_path / "job", {"model:given": given / "student", "model:cnn": given / "teacher"})
    made = [event.message for event in events if getattr(event, "code", "") == "head_made"]
    assert [message.split(" is made anew")[0] for message in made] == [
        "The head of the teacher model:cnn",
        "The head of the student model:given",
    ]
    assert load_network(tmp_path / "job" / RESULT_FOLDER / "student").classes == ["man", "woman"]


def test_a_masked_language_model_learns_to_tell_entities(rows: Path, tmp_path: Path) -> None:
    assert isinstance(words.train(words.spec(rows, training={"max_steps": 1}), tmp_path / "first")[-1], Finished)
    made = tmp_path / "first" / RESULT_FOLDER / "student"
    AutoModelForMaskedLM.from_pretrained(made).save_pretrained(tmp_path / "given")
    for name in TOKENIZER:
        (tmp_path / "given" / name).write_bytes((made / name).read_bytes())
    document = words.spec(rows, student=GIVEN, training=SHORT)
    events = run_job(document, tmp_path / "job", {"model:given": tmp_path / "given"})
    assert "cls.predictions" in warnings(events)["head_made"]


def test_an_encoder_of_another_width_learns_an_encoders_embeddings(encoder_teacher: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = AutoModel.from_pretrained(encoder_teacher).config
    config.update(embeddings.encoder(16))
    AutoModel.from_config(config).save_pretrained(tmp_path / "given")
    for name in TOKENIZER:
        (tmp_path / "given" / name).write_bytes((encoder_teacher / name).read_bytes())
    document = embeddings.spec(student=GIVEN, training=SHORT | {"batch_size": 64})
    run_job(document, tmp_path / "job", {"model:given": tmp_path / "given", embeddings.SOURCE: encoder_teacher})
    assert report(tmp_path / "job")["student"]["parameters"] < report(tmp_path / "job")["teacher"]["parameters"]
