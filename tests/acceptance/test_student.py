"""The downloaded student, in a process that has nothing of this service, is as good as the report says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from service.client import Client
from service.spec.data import DatasetSpec
from tests.interpreter import Interpreter
from worker.data import load_data
from worker.tasks import TASKS

Spec = dict[str, object]

_TRANSFORMERS_ALONE = """
import sys
import json, numpy, torch
from transformers import AutoImageProcessor, AutoModelForImageClassification
folder, data = sys.argv[1:]
arrays = numpy.load(data)
processor = AutoImageProcessor.from_pretrained(folder)
student = AutoModelForImageClassification.from_pretrained(folder).eval()
pixels = processor(list(arrays["image"]), return_tensors="pt", input_data_format="channels_last")
with torch.no_grad():
    chosen = student(**pixels).logits.argmax(dim=-1)
names = [student.config.id2label[index] for index in chosen.tolist()]
print(numpy.mean([name == str(label) for name, label in zip(names, arrays["label"])]))
"""
_MODELS_ALONE = """
import sys
from pathlib import Path
from stillhouse import load_network
assert not {"sqlalchemy", "fastapi", "celery", "redis"} & set(sys.modules)
import numpy, torch
folder, data = sys.argv[1:]
arrays = numpy.load(data)
student = load_network(Path(folder))
with torch.no_grad():
    images = torch.from_numpy(arrays["image"]).permute(0, 3, 1, 2)
    chosen = student.network(student.preprocessing(images)).argmax(dim=-1)
print(numpy.mean([student.classes[index] == str(label) for index, label in zip(chosen.tolist(), arrays["label"])]))
"""
_TEXTS_ALONE = """
import sys
import json, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, data = sys.argv[1:]
rows = json.load(open(data))
tokenizer = AutoTokenizer.from_pretrained(folder)
student = AutoModelForSequenceClassification.from_pretrained(folder).eval()
with torch.no_grad():
    read = tokenizer([text for text, _ in rows], padding=True, truncation=True, return_tensors="pt")
    chosen = student(**read).logits.argmax(dim=-1)
names = [student.config.id2label[index] for index in chosen.tolist()]
print(sum(name == label for name, (_, label) in zip(names, rows)) / len(rows))
"""
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 2}


_LANGUAGE_MODEL_ALONE = """
import sys
import math, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, *texts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
student = AutoModelForCausalLM.from_pretrained(folder).eval()
stream = [token for text in texts for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]]
length = tokenizer.model_max_length
rows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
with torch.no_grad():
    print(math.exp(student(rows, labels=rows).loss))
"""


@pytest.fixture
def test_split(tmp_path: Path) -> Path:
    """The digits that took no part in the training, as (N, H, W, C) 8-bit images with their labels."""
    dataset = DatasetSpec(source="builtin:digits", input="image")
    split = load_data(dataset, None, task=TASKS["image-classification"]).splits["test"]
    path = tmp_path / "test.npz"
    np.savez(path, image=split.inputs.permute(0, 2, 3, 1).numpy(), label=split.labels.numpy())
    return path


@pytest.mark.parametrize(
    ("architecture", "method", "script"),
    [
        ({"name": "transformers", "model_type": "vit", "config": VIT}, "soft-targets", _TRANSFORMERS_ALONE),
        ({"name": "small-cnn", "width": 4}, "fitnet", _MODELS_ALONE),
    ],
    ids=["transformers", "own"],
)
def test_it_has_the_reports_accuracy(
    client: Client,
    spec: Spec,
    test_split: Path,
    libraries_alone: Interpreter,
    tmp_path: Path,
    architecture: object,
    method: str,
    script: str,
) -> None:
    job = client.wait(
        client.submit(spec | {"student": {"architecture": architecture}, "method": {"name": method}}).id, timeout_seconds=240
    )
    assert job.status == "succeeded", job.error
    client.download(job.id, tmp_path, names=["student", "report.json"])
    if script is _MODELS_ALONE:
        command = [sys.executable, "-c", script, str(tmp_path / "student"), str(test_split)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    else:
        said = libraries_alone.run(script, str(tmp_path / "student"), str(test_split), folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert float(said) == pytest.approx(report["student"]["test_accuracy"], abs=1e-9)


def test_the_example_of_a_language_model_has_the_reports_perplexity(
    client: Client, libraries_alone: Interpreter, tmp_path: Path
) -> None:
    example = yaml.safe_load((Path(__file__).parents[2] / "examples" / "language-model.yaml").read_text(encoding="utf-8"))
    example["teacher"]["training"] = example["training"] = {"max_steps": 10, "batch_size": 16}
    job = client.wait(client.submit(example | {"evaluation": {"control": False}}).id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    client.download(job.id, tmp_path, names=["student", "report.json"])
    dataset = DatasetSpec(source="builtin:languages", input="text", targets=[], packing="packed")
    texts = load_data(dataset, None, task=TASKS["causal-lm"]).splits["test"].inputs
    said = libraries_alone.run(_LANGUAGE_MODEL_ALONE, str(tmp_path / "student"), *texts, folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert float(said) == pytest.approx(report["student"]["metrics"]["next token"]["perplexity"], rel=1e-4)


def test_one_that_reads_texts_has_it_too(client: Client, libraries_alone: Interpreter, tmp_path: Path) -> None:
    bert = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    job = client.submit(
        {
            "task": "text-classification",
            "dataset": {"source": "builtin:languages"},
            "teacher": {
                "architecture": {"name": "transformers", "model_type": "bert", "config": bert},
                "tokenizer": {"train": "wordpiece", "vocab_size": 500},
                "training": {"max_steps": 20},
            },
            "student": {
                "architecture": {
                    "name": "transformers",
                    "model_type": "gpt2",
                    "config": {"n_embd": 8, "n_layer": 1, "n_head": 2},
                },
                "tokenizer": {"train": "bpe", "vocab_size": 400},
            },
            "training": {"max_steps": 60},
        }
    )
    job = client.wait(job.id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    client.download(job.id, tmp_path, names=["student", "report.json"])
    data = load_data(DatasetSpec(source="builtin:languages", input="text"), None, task=TASKS["text-classification"])
    split, names = data.splits["test"], data.targets.classes
    rows = [[text, names[label]] for text, label in zip(split.inputs, split.labels.tolist(), strict=True)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    said = libraries_alone.run(_TEXTS_ALONE, str(tmp_path / "student"), str(tmp_path / "rows.json"), folder=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert float(said) == pytest.approx(report["student"]["test_accuracy"], abs=1e-9)
