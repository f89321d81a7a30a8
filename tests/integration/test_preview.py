"""What the networks of a job read, of texts, chats, images and sound, beside what they are trained on."""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.spec import parse_spec
from service.spec.preview import Preview, PreviewedSample, ReadImage, ReadText
from tests.integration.test_chats import LLAMA, TEMPLATE, TOKENIZER
from tests.integration.test_methods import Recorder
from tests.integration.test_texts import BERT, BPE, GPT2, WORDPIECE, network
from worker.data.tensors import only_tensor
from worker.job.job_data import load_job_data
from worker.job.networks import Networks
from worker.job.roles import STUDENT
from worker.preflight import preview
from worker.protocol import Assignment, Failed, Previewed


def previewed(document: dict[str, Any], folder: Path, *, samples: int = 3) -> Preview:
    last = _last(document, folder, samples=samples)
    assert isinstance(last, Previewed), last
    return Preview.model_validate(json.loads(json.dumps(last.preview, allow_nan=False)))


def _last(document: dict[str, Any], folder: Path, *, samples: int) -> Any:
    recorder = Recorder()
    spec = parse_spec(document).model_dump(mode="json")
    preview(Assignment("job_test", spec, folder, inputs=_inputs(document), num_threads=1, preview=samples), recorder)
    return recorder.events[-1]


def _inputs(document: dict[str, Any]) -> dict[str, Path]:
    source = document["dataset"]["source"]
    return {source: Path(source.removeprefix("file:"))} if source.startswith("file:") else {}


def _networks(document: dict[str, Any], folder: Path) -> Networks:
    spec = parse_spec(document)
    data = load_job_data(spec, _inputs(document))
    return Networks(spec, data, device=torch.device("cpu"), inputs={}, scratch=folder)


def _text(sample: PreviewedSample) -> ReadText:
    assert isinstance(sample.read, ReadText)
    return sample.read


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_text_is_shown_in_the_tokens_of_each_network_with_its_class_weight_and_line(tmp_path: Path) -> None:
    rows = [
        {
            "text": "red fox " * (1 + row % 4),
            "label": ["cat", "dog"][row % 2],
            "w": 1 + row % 2,
            "split": ["train", "test"][row > 19],
        }
        for row in range(40)
    ]
    document = {
        "task": "text-classification",
        "dataset": {"source": f"file:{_write(tmp_path / 'texts.jsonl', rows)}", "weight": "w"},
        "teacher": {"architecture": network("bert", BERT), "tokenizer": WORDPIECE, "training": {"max_steps": 1}},
        "student": {"architecture": network("gpt2", GPT2), "tokenizer": BPE},
        "training": {"max_steps": 1},
    }
    found = previewed(document, tmp_path, samples=4)
    assert list(found.samples) == ["teacher", "student"]
    networks = _networks(document, tmp_path)
    train = networks.data.splits["train"]
    for role, samples in zip(networks.specs.plan.trained, found.samples.values(), strict=True):
        assert len(samples) == 4
        for sample in samples:
            (index,) = (number for number in range(len(train)) if train.place(number) == sample.place)
            row = int(sample.place.split("row ")[1].split()[0])
            assert sample.labels == {"label": rows[row]["label"]}
            assert train.weights is not None
            assert sample.weight == pytest.approx(float(train.weights[index]))
            batch = networks.samples(role, "train").batch(torch.tensor([index]))
            (wanted,) = only_tensor(batch.inputs)
            assert [token.id for token in _text(sample).tokens] == [number for number in wanted.tolist() if number != -1]
            assert not any(token.counts for token in _text(sample).tokens)
    first = _text(found.samples["teacher"][0])
    assert [token.text for token in first.tokens][:2] == ["[CLS]", "red"]
    assert "".join(token.text for token in _text(found.samples["student"][0]).tokens).startswith("red fox ")


def test_what_the_assistant_says_counts_in_a_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = [{"role": "user", "content": "one and one"}, {"role": "assistant", "content": "two"}]
    rows = [{"messages": chat * (1 + row % 2), "split": ["train", "test"][row > 7]} for row in range(12)]
    source = f"file:{_write(tmp_path / 'chats.jsonl', rows)}"
    document = {
        "task": "causal-lm",
        "dataset": {"source": source, "input": "messages", "chat_template": TEMPLATE},
        "teacher": {"architecture": LLAMA, "tokenizer": TOKENIZER, "training": {"max_steps": 1}},
        "student": {"architecture": LLAMA},
        "training": {"max_steps": 1},
    }
    for sample in previewed(document, tmp_path, samples=2).samples["student"]:
        turns = 1 + int(sample.place.split("row ")[1].split()[0]) % 2
        tokens = _text(sample).tokens
        whole = "@user\none and one<|endoftext|>\n@assistant\ntwo<|endoftext|>\n" * turns
        assert "".join(token.text for token in tokens) == whole
        assert "".join(token.text for token in tokens if token.counts) == "two<|endoftext|>" * turns

    packed = document | {"dataset": {"source": source, "input": "messages", "chat_template": TEMPLATE, "packing": "isolated"}}
    first, *_ = previewed(packed, tmp_path, samples=2).samples["teacher"]
    assert sum(token.text == "two" for token in _text(first).tokens if token.counts) > 1

    monkeypatch.setattr(sys.modules["worker.preflight.preview"], "MOST_TOKENS", 3)
    cut, *_ = previewed(packed, tmp_path, samples=2).samples["teacher"]
    assert _text(cut).tokens == _text(first).tokens[:3]
    assert _text(cut).unshown == len(_text(first).tokens) - 3


def test_an_image_is_shown_as_the_first_epoch_augments_it(tmp_path: Path) -> None:
    document = {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 2}, "training": {"max_steps": 1}},
        "student": {"architecture": {"name": "small-cnn", "width": 2}},
        "training": {"max_steps": 1, "augment": ["crop", {"name": "mixup"}]},
    }
    found, networks = previewed(document, tmp_path), _networks(document, tmp_path)
    samples, train = networks.samples(STUDENT, "train"), networks.data.splits["train"]
    plain = networks.samples(networks.specs.plan.trained[0], "train")
    indices = np.linspace(0, len(train) - 1, num=3).astype(int).tolist()
    for index, shown, teachers in zip(indices, found.samples["student"], found.samples["teacher"], strict=True):
        batch = samples.batch(torch.tensor([index]), epoch=0)
        assert isinstance(batch.inputs, torch.Tensor)
        assert isinstance(shown.read, ReadImage)
        assert batch.mixture is not None
        assert batch.stored_view is not None
        assert (shown.read.lowest, shown.read.highest) == (batch.inputs.min().item(), batch.inputs.max().item())
        assert shown.read.shape == [1, 8, 8]
        assert shown.share == batch.mixture.shares.item()
        assert shown.mixed_with is not None
        assert shown.labels == {"label": str(int(train.labels[index]))}
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(shown.read.thumbnail).split(",")[1]))))
        assert pixels == pytest.approx(batch.stored_view[0, 0].numpy() / 16 * 255, abs=0.51)
        read = plain.batch(torch.tensor([index])).inputs
        assert isinstance(read, torch.Tensor)
        assert isinstance(teachers.read, ReadImage)
        assert (teachers.read.lowest, teachers.read.highest) == (read.min().item(), read.max().item())
        assert teachers.share is None


def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path) -> None:
    document = {
        "task": "causal-lm",
        "dataset": {
            "source": f"file:{_write(tmp_path / 'chats.jsonl', [{'messages': [{'role': 'user'}]}])}",
            "input": "messages",
        },
        "teacher": {"architecture": LLAMA, "tokenizer": TOKENIZER, "training": {"max_steps": 1}},
        "student": {"architecture": LLAMA},
    }
    last = _last(document, tmp_path, samples=1)
    assert isinstance(last, Failed)
    assert last.details["pointer"] == "/dataset/source"
