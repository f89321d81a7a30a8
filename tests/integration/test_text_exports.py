"""Students of texts in a process without this project: on the same raw texts they give what they gave in the job."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from service.spec import parse_spec
from tests.integration.test_methods import train
from tests.interpreter import Interpreter
from tests.truth.text_networks import CLASSES, TEXT_SWITCHES, WORDS, save_network, texts_of, write_rows
from worker.data.text.language_preprocessing import LanguagePreprocessing
from worker.evaluation.entities import count_entities
from worker.models.language_network import LanguageNetwork
from worker.protocol import RESULT_FOLDER, Finished
from worker.tasks import load_network

SOURCE = "model:model_00000000000000000000000000"
TEXTS = [*texts_of("long"), *texts_of("odd")]
# A tokenizer with everything that its student must not lose, or must not take over.
UNUSUAL = {name: values[0] for name, values in TEXT_SWITCHES.items()} | {
    "tokenizer": "bpe",
    "padding side": "left",
    "cut side": "left",
    "token types": "given",
    "pad token": "the config's",
}
SMALL = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 40}

_OUTPUTS = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

folder, texts, task = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    if task == "causal-lm":
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        print(json.dumps([model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]))
    else:
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        if task == "sentence-embedding":
            states = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
            counted = inputs["attention_mask"].unsqueeze(-1)
            print(json.dumps(((states * counted).sum(dim=1) / counted.sum(dim=1)).tolist()))
        else:
            print(json.dumps(AutoModelForSequenceClassification.from_pretrained(folder).eval()(**inputs).logits.tolist()))
"""

AUTO_CLASSES = {
    "text-classification": AutoModelForSequenceClassification,
    "sentence-embedding": AutoModel,
    "causal-lm": AutoModelForCausalLM,
}


def job(task: str, model_type: str, folder: Path) -> Path:
    """Teaches a GPT-2 with its teacher's tokenizer; returns the student's folder."""
    teacher, path = folder / "teacher", folder / "rows.jsonl"
    names = {"id2label": dict(enumerate(CLASSES))} if task == "text-classification" else {}
    settings = UNUSUAL | ({"token types": "not given"} if task == "causal-lm" else {})
    save_network(AUTO_CLASSES[task], model_type, settings, teacher, **names)
    write_rows(path, [{"text": text, "label": CLASSES[index % 3]} for index, text in enumerate(TEXTS * 3)])
    method = {"text-classification": "soft-targets", "sentence-embedding": "embedding", "causal-lm": "forward-kl"}[task]
    document = {
        "task": task,
        "dataset": {"source": f"file:{path}"},
        "teacher": {"source": SOURCE, "accept_score": "any"},
        "student": {"architecture": {"name": "transformers", "model_type": "gpt2", "config": SMALL}},
        "method": {"name": method},
        "training": {"max_steps": 2, "batch_size": 8},
    }
    inputs = {SOURCE: teacher, f"file:{path}": path}
    last = train(parse_spec(document).model_dump(mode="json"), folder / "job", inputs=inputs).events[-1]
    assert isinstance(last, Finished), last
    return folder / "job" / RESULT_FOLDER / "student"


@pytest.mark.parametrize(("task", "model_type"), [("text-classification", "bert"), ("sentence-embedding", "llama")])
def test_a_student_alone_gives_what_it_gave_in_the_job(
    libraries_alone: Interpreter, tmp_path: Path, task: str, model_type: str
) -> None:
    student = job(task, model_type, tmp_path)
    loaded = load_network(student)
    with torch.no_grad():
        measured = loaded.network(loaded.preprocessing.prepare(TEXTS))
    told = libraries_alone.run(_OUTPUTS, str(student), json.dumps(TEXTS), task, folder=tmp_path)
    torch.testing.assert_close(torch.tensor(json.loads(told)), measured, atol=1e-4, rtol=1e-4)


def test_a_language_model_alone_gives_the_logits_that_were_measured(libraries_alone: Interpreter, tmp_path: Path) -> None:
    student = job("causal-lm", "llama", tmp_path)
    loaded = load_network(student)
    assert isinstance(loaded.network, LanguageNetwork)
    assert isinstance(loaded.preprocessing, LanguagePreprocessing)
    texts = texts_of("odd")
    ids = loaded.preprocessing.prepare(texts)
    with torch.no_grad():
        measured = loaded.network.head(loaded.network.hidden(ids))
    told: list[Any] = json.loads(libraries_alone.run(_OUTPUTS, str(student), json.dumps(texts), "causal-lm", folder=tmp_path))
    for row, logits in zip(measured, told, strict=True):
        own: Tensor = torch.tensor(logits)
        torch.testing.assert_close(own[: len(row)], row[: len(own)], atol=1e-4, rtol=1e-4)


def tagged_rows() -> list[dict[str, Any]]:
    """Words with tags that are told by the word itself, or by the one before it."""
    draws, rows = random.Random(0), []
    for split, count in {"train": 60, "validation": 8, "test": 12}.items():
        for _ in range(count):
            words, tags = draws.choices(WORDS, k=draws.randint(2, 4)), ["O"]
            for word in words:
                begins = {"alpha": "B-PER", "gamma": "B-LOC"}.get(word, "O")
                tags.append(f"I{tags[-1][1:]}" if word == "beta" and tags[-1] != "O" else begins)
            rows.append({"tokens": words, "tags": tags[1:], "split": split})
    return rows


def test_the_program_of_a_card_finds_the_entities_that_the_report_counts(libraries_alone: Interpreter, tmp_path: Path) -> None:
    teacher, path, rows = tmp_path / "teacher", tmp_path / "rows.jsonl", tagged_rows()
    names = sorted({tag for row in rows for tag in row["tags"]})
    save_network(
        AutoModelForTokenClassification, "bert", UNUSUAL | {"cut at": "nothing"}, teacher, id2label=dict(enumerate(names))
    )
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    document = {
        "task": "token-classification",
        "dataset": {"source": f"file:{path}"},
        "teacher": {"source": SOURCE, "accept_score": "any"},
        "student": {"architecture": {"name": "transformers", "model_type": "gpt2", "config": SMALL}},
        "method": {"name": "soft-targets", "label_weight": 1.0},
        "training": {"max_steps": 60, "batch_size": 20, "optimizer": {"name": "adamw", "learning_rate": 0.02}},
    }
    inputs = {SOURCE: teacher, f"file:{path}": path}
    last = train(parse_spec(document).model_dump(mode="json"), tmp_path / "job", inputs=inputs).events[-1]
    assert isinstance(last, Finished), last
    result = tmp_path / "job" / RESULT_FOLDER
    card = (result / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^## Use\n\n```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    program = re.sub(r"^words = .*$", "import json, sys; words = json.loads(sys.argv[1])", program, flags=re.MULTILINE)

    tested = [row for row in rows if row["split"] == "test"]
    told = [libraries_alone.run(program, json.dumps(row["tokens"]), folder=result).splitlines() for row in tested]
    assert [[line.split()[0] for line in lines] for lines in told] == [row["tokens"] for row in tested]
    found = [[line.split()[1] for line in lines] for lines in told]
    counts = count_entities(found, [row["tags"] for row in tested], names)
    measured = json.loads((result / "report.json").read_text(encoding="utf-8"))["student"]["metrics"]["tags"]
    assert {name: measured[name] for name in counts.score()._asdict()} == counts.score()._asdict()
    assert counts.score().f1 > 0.2
