"""Texts, sound and embeddings without a label, or with transfer rows: each once, from a spec to the report."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.spec import parse_spec
from tests.integration import test_sound as sound
from tests.integration import test_texts as texts
from tests.integration.test_embeddings import SOURCE, teacher
from tests.integration.test_embeddings import spec as embedding_spec
from tests.integration.test_methods import Recorder
from tests.integration.test_texts import report, rows
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Failed, Finished

__all__ = ["rows", "teacher"]


def train(document: dict[str, Any], folder: Path, inputs: dict[str, Path]) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder()
    spec = parse_spec(document).model_dump(mode="json")
    run(Assignment(job_id="job_test", spec=spec, folder=folder, inputs=inputs, num_threads=1), recorder)
    return recorder


def bare_texts(path: Path, words: Sequence[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": " ".join(words[place : place + 3])}) for place in range(len(words) - 3)))
    return path


WORDS = [word for _ in range(4) for kind in texts.WORDS.values() for word in kind]


def test_texts_without_labels_have_their_teachers_classes(rows: Path, tmp_path: Path) -> None:
    assert isinstance(texts.train(texts.spec(rows), tmp_path / "first").events[-1], Finished)
    inputs = {
        "model:m": tmp_path / "first" / RESULT_FOLDER / "teacher",
        "file:bare": bare_texts(tmp_path / "bare.jsonl", WORDS),
        "file:more": bare_texts(tmp_path / "more.jsonl", WORDS[::-1]),
    }
    document = texts.spec(rows) | {
        "dataset": {"source": "file:bare", "transfer": "file:more"},
        "teacher": {"source": "model:m"},
        "evaluation": {"correct_bias": True},
    }
    last = train(document, tmp_path / "job", inputs).events[-1]
    assert isinstance(last, Finished), last
    told = report(tmp_path / "job")
    assert told["data"]["classes"] == sorted(texts.WORDS)
    assert (told["chosen_by"], told["student"]["test_score"]) == ("agreement", None)
    assert told["data"]["rows"]["transfer"] == len(WORDS) - 3
    # GPT-2's head has no bias of its own: that of the norm before it holds the shift.
    assert told["bias"]["are_transfer"]
    assert told["bias"]["largest_difference_after"] < 1e-4


def test_sound_without_labels_has_its_teachers_classes(spoken_digits: Path, tmp_path: Path) -> None:
    document = sound.spec(spoken_digits, {"name": "soft-targets"}, teacher=sound.CNN, student=sound.CNN)
    assert isinstance(sound.train(document, tmp_path / "first").events[-1], Finished)
    with zipfile.ZipFile(spoken_digits) as labelled, zipfile.ZipFile(tmp_path / "bare.zip", "w") as bare:
        for number, name in enumerate(sorted(labelled.namelist())):
            if name.startswith("train/"):
                bare.writestr(f"{number}.wav", labelled.read(name))
    inputs = {"model:m": tmp_path / "first" / RESULT_FOLDER / "teacher", "file:bare": tmp_path / "bare.zip"}
    document |= {"dataset": {"source": "file:bare"}, "teacher": {"source": "model:m"}}
    last = train(document, tmp_path / "job", inputs).events[-1]
    assert isinstance(last, Finished), last
    told = report(tmp_path / "job")
    assert told["data"]["classes"] == json.loads((inputs["model:m"] / "labels.json").read_text())
    assert told["chosen_by"] == "agreement"


def test_an_encoder_learns_from_further_texts(teacher: Path, tmp_path: Path) -> None:
    inputs = {SOURCE: teacher, "file:more": bare_texts(tmp_path / "more.jsonl", WORDS)}
    document = embedding_spec(
        dataset={"source": "builtin:languages", "transfer": "file:more", "transfer_fraction": 0.1}, training={"max_steps": 3}
    )
    last = train(document, tmp_path / "job", inputs).events[-1]
    assert isinstance(last, Finished), last
    assert report(tmp_path / "job")["data"]["rows"]["transfer"] == len(WORDS) - 3


def test_a_head_without_a_bias_fails_the_job_before_anything_is_trained(rows: Path, tmp_path: Path) -> None:
    config = texts.BERT | {"num_key_value_heads": 1}
    llama = {"architecture": texts.network("llama", config), "tokenizer": texts.BPE}
    *_, last = texts.train(texts.spec(rows, student=llama, evaluation={"correct_bias": True}), tmp_path / "job").events
    assert isinstance(last, Failed)
    assert (last.code, last.details) == ("invalid_spec", {"pointer": "/evaluation/correct_bias"})
    assert "have no bias that could be set" in last.message
    assert "false" in (last.hint or "")
