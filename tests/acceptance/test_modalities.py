"""Images, texts and sound: uploaded over HTTP, and trained on by the three methods that everything else is measured by."""

import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import BertConfig, BertModel

from examples.named_entities import sentences
from service.client import ApiError, Client, Job
from service.embedded.stack import Stack
from service.spec.data import DatasetSpec
from service.spec.tasks import TaskName
from worker.data import load_data
from worker.data.builtin.languages import load_languages
from worker.data.text.tokenization import save_tokenizer, train_tokenizer
from worker.tasks import TASKS

METHODS = ["soft-targets", "distillation-network", "multi-task"]
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2}
WAV2VEC2 = {
    "feat_extract_norm": "layer",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": [8, 8],
    "conv_kernel": [20, 16],
    "conv_stride": [16, 16],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}


@dataclass(frozen=True)
class Modality:
    """A dataset with two targets, and a teacher and a student for it that have little in common."""

    task: TaskName
    second_target: str
    teacher: dict[str, Any]
    student: dict[str, Any]


MODALITIES = {
    "images": Modality(
        task="image-classification",
        second_target="parity",
        teacher={"architecture": {"name": "small-cnn", "width": 8}},
        student={"architecture": {"name": "small-cnn", "width": 2}},
    ),
    "texts": Modality(
        task="text-classification",
        second_target="kind",
        teacher={
            "architecture": {"name": "transformers", "model_type": "bert", "config": BERT},
            "tokenizer": {"train": "wordpiece", "vocab_size": 300, "max_length": 24},
        },
        student={
            "architecture": {"name": "transformers", "model_type": "gpt2", "config": GPT2},
            "tokenizer": {"train": "bpe", "vocab_size": 300, "max_length": 32},
        },
    ),
    "sound": Modality(
        task="audio-classification",
        second_target="voice",
        teacher={"architecture": {"name": "transformers", "model_type": "wav2vec2", "config": WAV2VEC2}},
        student={"architecture": {"name": "small-cnn", "width": 2}, "features": {"name": "log-mel", "mels": 16}},
    ),
}


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def digit_files() -> list[tuple[str, bytes]]:
    """Some handwritten digits as PNGs, each with its class."""
    split = load_data(DatasetSpec(source="builtin:digits"), None, task=TASKS["image-classification"]).splits["train"]
    return [(str(int(split.labels[row])), png((split.inputs[row, 0] * 15).numpy())) for row in range(0, 600, 5)]


def image_table(folder: Path) -> Path:
    files = digit_files()
    columns = {
        "image": [{"bytes": data, "path": None} for _, data in files],
        "label": [digit for digit, _ in files],
        "parity": ["odd" if int(digit) % 2 else "even" for digit, _ in files],
    }
    pq.write_table(pa.table(columns), folder / "digits.parquet")
    return folder / "digits.parquet"


def text_table(folder: Path) -> Path:
    dataset = DatasetSpec(source="builtin:languages", input="text", targets=["label", "kind"])
    data = load_data(dataset, None, task=TASKS["text-classification"])
    split = data.splits["train"]
    path = folder / "names.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *(target.name for target in data.targets)])
        for row in range(0, len(split), 8):
            named = [(target.classes or ())[int(label)] for target, label in zip(data.targets, split.labels[row], strict=True)]
            writer.writerow([split.inputs[row], *named])
    return path


@pytest.fixture(scope="module")
def jobs(running_stack: Stack, voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Job]]:
    """Every method on every modality, queued at once."""
    folder = tmp_path_factory.mktemp("modalities")
    files = {"images": image_table(folder), "texts": text_table(folder), "sound": voices}
    submitted = {}
    with Client(running_stack.connection.url, running_stack.connection.api_key) as client:
        for name, modality in MODALITIES.items():
            targets = ["label", modality.second_target]
            dataset = client.upload_dataset(files[name], name=name, task=modality.task, target_column=targets)
            for method in METHODS:
                spec = {
                    "name": f"{name} by {method}",
                    "task": modality.task,
                    "dataset": {
                        "source": f"dataset:{dataset.id}",
                        "targets": targets if method == "multi-task" else ["label"],
                    },
                    "teacher": {**modality.teacher, "training": {"max_steps": 10}},
                    "student": modality.student,
                    "method": {"name": method},
                    "training": {"max_steps": 15, "batch_size": 20},
                }
                submitted[name, method] = client.submit(spec)
        yield submitted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODALITIES)
def test_each_of_the_three_methods_works_on_images_texts_and_sound(
    client: Client, jobs: dict[tuple[str, str], Job], name: str, method: str
) -> None:
    job = client.wait(jobs[name, method].id, timeout_seconds=300)
    assert job.status == "succeeded", job.error
    report = client.report(job.id)
    targets = ["label", MODALITIES[name].second_target] if method == "multi-task" else ["label"]
    assert list(report["data"]["targets"]) == targets
    for role in ("teacher", "student"):
        assert list(report[role]["metrics"]) == targets
        assert all(0 <= figures["accuracy"] <= 1 for figures in report[role]["metrics"].values())
    assert (report["score_with_teacher"] is not None) == (method == "distillation-network")
    artifacts = {artifact.name for artifact in client.artifacts(job.id)}
    assert {"student/model.safetensors", "student/labels.json", "report.json", "README.md"} <= artifacts


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def folders() -> dict[str, bytes]:
    return {f"digits/{digit}/{index:03}.png": data for index, (digit, data) in enumerate(digit_files())}


def test_an_archive_of_class_folders_is_uploaded_and_trained_on(client: Client, tmp_path: Path) -> None:
    path = as_tar(tmp_path / "digits.tar.gz", folders())
    dataset = client.upload_dataset(path, name="class folders", task="image-classification")
    assert dataset.classes == [str(digit) for digit in range(10)]
    job = client.submit(
        {
            "task": "image-classification",
            "dataset": {"source": f"dataset:{dataset.id}"},
            "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 10}},
            "student": {"architecture": {"name": "small-cnn", "width": 2}},
            "training": {"max_steps": 10},
        }
    )
    job = client.wait(job.id, timeout_seconds=300)
    assert job.status == "succeeded", job.error
    assert sum(client.report(job.id)["data"]["rows"].values()) == len(digit_files())


def test_rows_to_learn_that_are_to_be_scored_too_are_told_at_upload_in_the_job_and_in_its_report(
    client: Client, tmp_path: Path
) -> None:
    digits = digit_files()
    parts = {"train": digits[:90], "test": [*digits[90:], *digits[3:5]]}
    files = {
        f"digits\\{part}\\{digit}\\{index:03}.png": data
        for part, rows in parts.items()
        for index, (digit, data) in enumerate(rows)
    }
    path = as_zip(tmp_path / "windows.zip", files | {"digits\\train\\Thumbs.db": b"of the system"})
    dataset = client.upload_dataset(path, name="digits of Windows", task="image-classification")
    told = {each["code"]: each["message"] for each in dataset.warnings}
    assert told.keys() == {"files_skipped", "rows_in_train"}
    assert told["rows_in_train"].startswith("2 of 32 rows of split 'test' are in split 'train' too, input for input (")
    facts = client.dataset(dataset.id).facts
    assert facts is not None
    assert [(each.split, each.also_in, each.rows) for each in facts.shared_rows] == [("test", "train", 2)]
    job = client.submit(
        {
            "task": "image-classification",
            "dataset": {"source": f"dataset:{dataset.id}"},
            "teacher": {"architecture": {"name": "small-cnn", "width": 8}, "training": {"max_steps": 5}},
            "student": {"architecture": {"name": "small-cnn", "width": 2}},
            "training": {"max_steps": 5},
        }
    )
    job = client.wait(job.id, timeout_seconds=300)
    assert job.status == "succeeded", job.error
    warnings = {"job": [each.model_dump() for each in job.warnings], "report": client.report(job.id)["warnings"]}
    for told_again in warnings.values():
        (message,) = [each["message"] for each in told_again if each["code"] == "rows_in_train"]
        assert message.startswith("2 of 32 rows of the test split are in the training data too, such as test split, row ")


def test_an_uploaded_encoder_teaches_a_smaller_one_and_that_one_the_next(client: Client, tmp_path: Path) -> None:
    names = list(load_languages().splits["train"].inputs)[:500]
    tokenizer = train_tokenizer(names, "wordpiece", 300)
    folder = tmp_path / "encoder"
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **BERT)).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, max_length=32)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = client.upload_model(as_zip(tmp_path / "encoder.zip", files), name="encoder")
    told = model.model_dump()
    assert (told["task"], told["classes"]) == ("sentence-embedding", [])

    source = f"model:{model.id}"
    for width in (8, 4):
        student = {"name": "transformers", "model_type": "bert", "config": BERT | {"hidden_size": width}}
        job = client.submit(
            {
                "task": "sentence-embedding",
                "dataset": {"source": "builtin:languages"},
                "teacher": {"source": source},
                "student": {"architecture": student},
                "method": {"name": "embedding"},
                "training": {"max_steps": 10},
            }
        )
        job = client.wait(job.id, timeout_seconds=300)
        assert job.status == "succeeded", job.error
        assert "embedding" in client.report(job.id)["student"]["metrics"]
        source = f"job:{job.id}"


def test_what_is_wrong_with_an_archive_is_told_by_its_path(client: Client, tmp_path: Path) -> None:
    files = folders() | {"digits/7/broken.png": b"\x89PNG\r\n\x1a\n and no more"}
    with pytest.raises(ApiError, match=r"'digits/7/broken\.png'") as refused:
        client.upload_dataset(as_zip(tmp_path / "digits.zip", files), name="wrong", task="image-classification")
    assert refused.value.status == 422


def test_an_archive_of_one_folder_is_stored_without_labels_and_trains_no_teacher(client: Client, tmp_path: Path) -> None:
    files = {name: data for name, data in folders().items() if "/7/" in name}
    dataset = client.upload_dataset(as_zip(tmp_path / "digits.zip", files), name="sevens", task="image-classification")
    assert [warning["code"] for warning in dataset.warnings] == ["lone_folder", "unlabelled"]
    with pytest.raises(ApiError, match="has no value in any row") as refused:
        client.submit(
            {
                "task": "image-classification",
                "dataset": {"source": f"dataset:{dataset.id}"},
                "teacher": {"architecture": {"name": "small-cnn", "width": 8}},
                "student": {"architecture": {"name": "small-cnn", "width": 2}},
            }
        )
    assert refused.value.status == 422


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_named_entities_are_uploaded_checked_and_trained_on(client: Client, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [sentence.as_tags() for sentence in sentences(250)]
    dataset = client.upload_dataset(as_jsonl(tmp_path / "entities.jsonl", rows), name="entities", task="token-classification")
    assert dataset.classes == ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]
    shown = client.dataset(dataset.id).model_dump()["samples"]
    assert [(sample["tokens"], sample["targets"]["tags"]) for sample in shown[:3]] == [
        (row["tokens"], row["tags"]) for row in rows[:3]
    ]
    network = {"name": "transformers", "model_type": "bert", "config": BERT | {"max_position_embeddings": 64}}
    training = {"max_steps": 60, "batch_size": 32, "optimizer": {"name": "adamw", "learning_rate": 0.01}}
    tokenizer = {"train": "wordpiece", "vocab_size": 320, "max_length": 64}
    job = client.submit(
        {
            "task": "token-classification",
            "dataset": {"source": f"dataset:{dataset.id}"},
            "teacher": {"architecture": network, "tokenizer": tokenizer, "training": training},
            "student": {"architecture": network},
            "training": training,
        }
    )
    job = client.wait(job.id, timeout_seconds=300)
    assert job.status == "succeeded", job.error
    assert job.estimate is not None, "it was checked"
    student = client.report(job.id)["student"]
    assert student["metrics"].keys() == {"tags", "tags: LOC", "tags: ORG", "tags: PER"}
    assert student["test_score"] == student["metrics"]["tags"]["f1"]
    assert {artifact.name for artifact in client.artifacts(job.id)} >= {"student/tokenizer.json", "student/config.json"}


def test_entities_of_another_scheme_are_refused_with_a_line_that_converts_them(client: Client, tmp_path: Path) -> None:
    rows = [{"tokens": ["Ann", "Lee", "left", "Oslo"], "tags": ["I-PER", "I-PER", "O", "I-LOC"]}]
    with pytest.raises(ApiError) as refused:
        client.upload_dataset(as_jsonl(tmp_path / "iob1.jsonl", rows), name="iob1", task="token-classification")
    assert refused.value.status == 422
    assert "row 0 (line 1), word 0 ('Ann')" in str(refused.value)
    (line,) = re.findall("convert each row with (.*?]$)", str(refused.value), flags=re.MULTILINE)
    assert eval(line, {"tags": rows[0]["tags"]}) == ["B-PER", "I-PER", "O", "B-LOC"]
