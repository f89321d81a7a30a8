"""The lines that load a student name the class that its library has for it."""

import json
from pathlib import Path

import pytest

from service.cli.student import how_to_load


@pytest.mark.parametrize(
    ("model_type", "architecture", "loader"),
    [
        ("vit", "ViTForImageClassification", "AutoModelForImageClassification"),
        ("gpt2", "GPT2ForSequenceClassification", "AutoModelForSequenceClassification"),
        ("wav2vec2", "Wav2Vec2ForSequenceClassification", "AutoModelForAudioClassification"),
        ("gpt2", "GPT2LMHeadModel", "AutoModelForCausalLM"),
    ],
)
def test_a_student_of_transformers_is_loaded_by_its_task(tmp_path: Path, model_type: str, architecture: str, loader: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": [architecture]}))
    assert how_to_load(tmp_path).splitlines()[0] == f"from transformers import {loader}"


def test_one_of_the_project_is_loaded_by_the_project(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "stillhouse"}))
    assert "from stillhouse import load_network" in how_to_load(tmp_path)
