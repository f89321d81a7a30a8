"""Pairs of texts over HTTP: uploaded by two columns, shown, learnt together, and taken as a given teacher's."""

import json
from pathlib import Path

import pytest

from service.client import ApiError, Client
from tests.integration.test_pairs import PAIR, network, rows

TOKENIZER = {"train": "wordpiece", "vocab_size": 400, "max_length": 24}
TRAINING = {"epochs": 8, "batch_size": 12, "optimizer": {"name": "adamw", "learning_rate": 5e-3}}


def test_pairs_are_uploaded_learnt_and_taught_by_a_given_teacher(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    dataset = client.upload_dataset(path, name="what follows", task="text-classification", input_column=PAIR)
    (shown, *_) = client.dataset(dataset.id).model_dump()["samples"]
    assert shown["texts"] == [rows()[0][name] for name in PAIR]

    def submitted(**changes: object) -> str:
        spec = {
            "task": "text-classification",
            "dataset": {"source": f"dataset:{dataset.id}", "input": PAIR, "read": "shards"},
            "teacher": {"architecture": network(32), "tokenizer": TOKENIZER, "training": TRAINING, "accept_score": "any"},
            "student": {"architecture": network(16)},
            "training": TRAINING | {"epochs": 2},
            "evaluation": {"control": False},
        }
        return client.submit(spec | changes).id

    with pytest.raises(ApiError, match=r"no column 'claim'; its text columns are 'premise', 'hypothesis'"):
        submitted(dataset={"source": f"dataset:{dataset.id}", "input": ["premise", "claim"]})
    first = client.wait(submitted(), timeout_seconds=300)
    assert first.status == "succeeded", first.error
    report = client.report(first.id)
    assert report["data"]["pairs"] is True
    assert report["data"]["read"].startswith("from shards")
    notes = [event.message for event in client.events_until_now(first.id) if event.type == "job.note"]
    assert notes == [f"The data are read {report['data']['read']}."]
    assert report["teacher"]["test_score"] > 0.6

    again = client.wait(submitted(teacher={"source": f"job:{first.id}/teacher", "accept_score": "any"}), timeout_seconds=300)
    assert again.status == "succeeded", again.error
    assert client.report(again.id)["teacher"]["test_score"] == report["teacher"]["test_score"]
