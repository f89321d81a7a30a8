"""Each task's networks in number formats: pixels, waveforms and tokens go into them, and every method reads what they say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.spec import parse_spec
from service.spec.methods import OF_TOKENS
from tests.integration import test_embeddings as embeddings
from tests.integration import test_language_models as language
from tests.integration import test_sound as sound
from tests.integration import test_token_classification as words
from tests.integration.test_chain import report
from tests.integration.test_embeddings import teacher as encoder  # noqa: F401 - a fixture
from tests.integration.test_language_models import texts  # noqa: F401 - a fixture
from tests.integration.test_methods import OF_SAMPLES, SMALL, train
from tests.integration.test_token_classification import rows  # noqa: F401 - a fixture
from worker.protocol import RESULT_FOLDER, Finished

GIVEN = "model:given"
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 4}
STEPS = {"max_steps": 2, "batch_size": 16}
ANOTHERS = {"deep-mutual", "distillation-network", "embedding", "attention-transfer", "nst", "review"}
"""They train their teacher, fold weights, are of texts, or compare maps."""
EACH = ["bf16", "fp16", "int8", "int4"]


def finished(document: dict[str, Any], folder: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    last = train(parse_spec(document).model_dump(mode="json"), folder, inputs=inputs).events[-1]
    assert isinstance(last, Finished), last
    return report(folder)


def by_given(document: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The same job with the teacher given, in that format, and a student in bf16."""
    student = document["student"] | {"weights": "bf16"}
    if document["task"] == "causal-lm" and document["method"]["name"] != "uld":
        student["tokenizer"] = None
    precision = document["training"] | {"precision": "auto"}
    given = {"source": GIVEN, "dtype": dtype, "accept_score": "any"}
    return document | {"teacher": given, "student": student, "training": precision}


def images(method: dict[str, Any]) -> dict[str, Any]:
    vit = {"name": "transformers", "model_type": "vit", "config": VIT}
    return {
        "task": "image-classification",
        "dataset": {"source": "builtin:digits"},
        "teacher": {"architecture": vit, "training": STEPS},
        "student": {"architecture": vit},
        "method": method,
        "training": STEPS,
    }


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    finished(images({"name": "soft-targets"}), folder, {})
    return folder / RESULT_FOLDER / "teacher"


@pytest.mark.parametrize("dtype", [pytest.param(each, marks=[] if each == "int4" else pytest.mark.exhaustive) for each in EACH])
def test_pixels_go_into_every_format(tmp_path: Path, of_images: Path, dtype: str) -> None:
    card = finished(by_given(images({"name": "fitnet"}), dtype), tmp_path / "job", {GIVEN: of_images})
    assert (card["teacher"]["dtype"]["format"], card["student"]["dtype"]["format"]) == (dtype, "bf16")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in OF_SAMPLES if name not in ANOTHERS])
def test_every_method_of_images_reads_a_teacher_of_integers(tmp_path: Path, of_images: Path, name: str) -> None:
    document = images({"name": name} | SMALL.get(name, {}))
    finished(by_given(document, "int8"), tmp_path / "job", {GIVEN: of_images})


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[] if (name, dtype) == ("sequence", "int4") else pytest.mark.exhaustive)
        for name in sorted(OF_TOKENS)
        for dtype in EACH
    ],
)
def test_language_models_are_told_apart_token_by_token(
    tmp_path: Path,
    texts: Path,  # noqa: F811
    name: str,
    dtype: str,
) -> None:
    source = {f"file:{texts}": texts}
    document = language.spec(texts, {"name": name} | language.SMALL.get(name, {}))
    finished(document, tmp_path / "made", source)
    made = tmp_path / "made" / RESULT_FOLDER / "teacher"
    card = finished(by_given(document, dtype), tmp_path / "job", source | {GIVEN: made})
    assert card["teacher"]["dtype"]["rows"] > 16, "tokens"
    assert card["teacher"]["dtype"]["kl_divergence"] < 0.01
    assert card["student"]["dtype"]["format"] == "bf16"


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8"])
@pytest.mark.parametrize("kind", ["WAV2VEC2", "AST"])
def test_sound_goes_into_every_format(tmp_path: Path, spoken_digits: Path, kind: str, dtype: str) -> None:
    source, own = {f"file:{spoken_digits}": spoken_digits}, getattr(sound, kind)
    document = sound.spec(spoken_digits, {"name": "soft-targets"}, teacher=own, student=own)
    finished(document, tmp_path / "made", source)
    made = tmp_path / "made" / RESULT_FOLDER / "teacher"
    card = finished(by_given(document, dtype), tmp_path / "job", source | {GIVEN: made})
    assert card["teacher"]["dtype"]["agreement"] > 0.7


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", EACH)
def test_embeddings_are_compared_by_their_similarities(
    tmp_path: Path,
    encoder: Path,  # noqa: F811
    dtype: str,
) -> None:
    document = embeddings.spec(training=STEPS)
    card = finished(by_given(document, dtype), tmp_path / "job", {GIVEN: encoder})
    assert card["teacher"]["dtype"]["agreement"] > 0.95
    assert card["teacher"]["dtype"]["kl_divergence"] is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8"])
def test_words_are_compared_one_by_one(
    tmp_path: Path,
    rows: Path,  # noqa: F811
    dtype: str,
) -> None:
    source = {f"file:{rows}": rows}
    document = words.spec(rows)
    finished(document, tmp_path / "made", source)
    made = tmp_path / "made" / RESULT_FOLDER / "teacher"
    card = finished(by_given(document, dtype), tmp_path / "job", source | {GIVEN: made})
    assert card["teacher"]["dtype"]["rows"] > 64, "words"


@pytest.mark.exhaustive
def test_the_program_of_a_students_card_runs_where_its_weights_are_bf16(tmp_path: Path, of_images: Path) -> None:
    finished(by_given(images({"name": "soft-targets"}), "auto"), tmp_path / "job", {GIVEN: of_images})
    folder = tmp_path / "job" / RESULT_FOLDER
    np.save(folder / "image.npy", np.zeros((8, 8, 1), dtype=np.float32))
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().isdigit()
