"""The first rows of a file, for people to look at."""

from pathlib import Path

import numpy as np
import pytest

from service.formats import Sample, first_samples
from tests.unit.formats.files import some_images, write_jsonl, write_npz

LONG = "x" * 600


def test_an_image_is_shown_by_its_shape_and_values(tmp_path: Path) -> None:
    images = some_images(3, 4, 6, 3)
    path = write_npz(tmp_path / "a.npz", image=images, label=[1, 0, 1], score=np.array([0.5, np.nan, 2.0]))
    targets = ["label", "score"]
    shown = first_samples(path, filename="a.npz", task="image-classification", target_columns=targets, num_rows=2)
    assert [(sample.row, sample.label, sample.targets, sample.shape, sample.text) for sample in shown] == [
        (0, "1", {"label": "1", "score": 0.5}, (4, 6, 3), None),
        (1, "0", {"label": "0", "score": None}, (4, 6, 3), None),
    ]
    assert (shown[1].minimum, shown[1].maximum) == (images[1].min(), images[1].max())
    assert shown[1].mean == pytest.approx(images[1].mean())


def test_a_text_is_shown_up_to_500_characters_with_its_targets_by_name(tmp_path: Path) -> None:
    rows = [
        {"text": LONG, "tone": "warm", "label": None, "split": "train"},
        {"text": "y", "tone": "cold", "label": 0, "split": "train"},
        {"text": "z", "tone": "cold", "label": 1, "split": "test"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    targets = ["label", "tone"]
    assert first_samples(path, filename="a", task="text-classification", target_columns=targets, num_rows=2) == [
        Sample(split="train", row=0, targets={"label": None, "tone": "warm"}, label=None, text="x" * 500),
        Sample(split="train", row=1, targets={"label": "0", "tone": "cold"}, label="0", text="y"),
    ]
    bare = first_samples(path, filename="a", task="causal-lm", num_rows=5)
    assert bare[2] == Sample(split="test", row=2, text="z")


def test_an_answer_is_shown_up_to_500_characters_and_is_no_label(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "why?", "answer": LONG}])
    shown = first_samples(path, filename="a", task="causal-lm", target_columns=["answer"], num_rows=5)
    assert shown == [Sample(split="train", row=0, targets={"answer": "x" * 500}, text="why?")]
