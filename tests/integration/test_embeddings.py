"""Sentence embeddings: a smaller encoder learns its teacher's vectors, and its library makes of it what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from service.spec import parse_spec
from service.spec.report import Report
from tests.integration.test_methods import STOP_AT, Recorder
from tests.interpreter import Interpreter
from worker.data.builtin.languages import load_languages
from worker.data.text.tokenization import save_tokenizer, train_tokenizer
from worker.evaluation.metrics import embedding_metrics
from worker.job.attempt import run
from worker.models.encoder_files import POOLING_FILE
from worker.protocol import RESULT_FOLDER, Assignment, Failed, Finished, Stopped
from worker.sources.folder_files import MODULES_FILE
from worker.tasks import TASKS, load_network

SOURCE = "model:model_00000000000000000000000000"


def encoder(width: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": width}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder as ``AutoModel`` saves one, of other weights than the library's first ones, so that texts differ in it."""
    return save_encoder(tmp_path_factory.mktemp("teacher"))


def save_encoder(folder: Path) -> Path:
    """The same in that folder."""
    tokenizer = train_tokenizer(list(load_languages().splits["train"].inputs)[:500], "wordpiece", 300)
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **encoder(32)))
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(30)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, max_length=32)
    return folder


def spec(*, width: int = 16, loss: str = "mse", **changes: Any) -> dict[str, Any]:
    document = {
        "task": "sentence-embedding",
        "dataset": {"source": "builtin:languages"},
        "teacher": {"source": SOURCE},
        "student": {
            "architecture": {
                "name": "transformers",
                "model_type": "bert",
                "config": encoder(width) | {"max_position_embeddings": 32},
            }
        },
        "method": {"name": "embedding", "loss": loss},
        "training": {"max_steps": 40, "batch_size": 128, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
    }
    return parse_spec(document | changes).model_dump(mode="json")


def train(document: dict[str, Any], folder: Path, teacher: Path, *, stop_at: int | None = None) -> Recorder:
    folder.mkdir(exist_ok=True)
    recorder = Recorder(stop_at=stop_at)
    run(Assignment(job_id="job_test", spec=document, folder=folder, num_threads=1, inputs={SOURCE: teacher}), recorder)
    return recorder


@pytest.mark.parametrize(("width", "loss"), [(16, "mse"), (32, "cosine")])
def test_a_student_learns_its_teachers_embeddings_and_resumes_exactly(
    width: int, loss: str, teacher: Path, tmp_path: Path
) -> None:
    document = spec(width=width, loss=loss)
    whole = train(document, tmp_path / "whole", teacher)
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    report = json.loads((tmp_path / "whole" / RESULT_FOLDER / "report.json").read_text())
    assert report["teacher"]["test_score"] == pytest.approx(1.0)
    assert report["student"]["test_score"] == pytest.approx(report["agreement"])
    assert report["student"]["test_score"] > 0.2
    assert report["student"]["test_accuracy"] is None
    assert ("cosine" in report["student"]["metrics"]["embedding"]) == (width == 32), "widths agree"

    assert train(document, tmp_path / "stopped", teacher, stop_at=STOP_AT).events[-1] == Stopped("drain")
    assert isinstance(train(document, tmp_path / "stopped", teacher).events[-1], Finished)
    weights = [(tmp_path / name / RESULT_FOLDER / "student" / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_the_student_is_an_encoder_of_its_library_pooled_as_it_says(
    teacher: Path, libraries_alone: Interpreter, tmp_path: Path
) -> None:
    assert isinstance(train(spec(), tmp_path, teacher).events[-1], Finished)
    folder = tmp_path / RESULT_FOLDER / "student"
    texts = list(load_languages().splits["test"].inputs)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    counted = inputs["attention_mask"].unsqueeze(-1)
    loaded, given = load_network(folder), load_network(teacher)
    with torch.no_grad():
        embeddings = (model(**inputs).last_hidden_state * counted).sum(dim=1) / counted.sum(dim=1)
        ours, theirs = (each.network(each.preprocessing.prepare(texts)) for each in (loaded, given))
    torch.testing.assert_close(embeddings, ours, atol=1e-5, rtol=1e-4)
    report = json.loads((tmp_path / RESULT_FOLDER / "report.json").read_text())
    measured = report["student"]["metrics"]["embedding"]
    assert measured["similarity_spearman"] == pytest.approx(
        embedding_metrics(embeddings, theirs)["similarity_spearman"], abs=1e-4
    )
    program = TASKS["sentence-embedding"].words(Report.model_validate(report), is_own=False).usage
    assert -1 <= float(libraries_alone.run(program, folder=folder.parent)) <= 1
    assert json.loads((folder / POOLING_FILE).read_text())["pooling_mode_mean_tokens"] is True


def test_a_pooling_that_is_not_known_is_refused_with_those_that_are(teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "teacher"
    (copy / "1_Pooling").mkdir(parents=True)
    for path in teacher.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / POOLING_FILE).write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "median"}))
    kinds = {"": "base.modules.transformer.Transformer", "1_Pooling": "sentence_transformer.modules.pooling.Pooling"}
    (copy / MODULES_FILE).write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in kinds.items()])
    )
    last = train(spec(), tmp_path / "job", copy).events[-1]
    assert isinstance(last, Failed)
    assert last.code == "input_unavailable"
    assert "1_Pooling/config.json pools by 'median'; pooling is by cls, max, mean" in last.message
    # As sentence-transformers writes it since version 5.4.
    new = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
    (copy / POOLING_FILE).write_text(json.dumps(new))
    assert isinstance(train(spec(), tmp_path / "job", copy).events[-1], Finished)
