"""Whole jobs whose batches go through the networks in parts, against the same jobs without, and again with an interruption."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from service.spec import parse_spec
from tests.integration import test_ranks, test_texts
from tests.integration.test_methods import Recorder, student
from tests.integration.test_ranks import VIT, _fork_server, transformers
from tests.integration.test_texts import rows
from tests.unit.worker.training import test_memory
from worker.distributed.group import join
from worker.host.fork_server import context
from worker.job.attempt import run
from worker.protocol import RESULT_FOLDER, Assignment, Finished, Stopped
from worker.training.loop import train

__all__ = ["_fork_server", "rows"]

STEADY = VIT | {"hidden_dropout_prob": 0.0}
TRAINING = {"max_steps": 4, "batch_size": 40, "optimizer": {"name": "sgd"}, "gradient_accumulation": 2}
DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "small-cnn", "width": 4}, "training": {"max_steps": 2}},
    "student": {"architecture": transformers("vit", **STEADY)},
    "training": TRAINING,
}


def weights(document: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """The student that a job makes."""
    folder.mkdir()
    recorder = Recorder()
    run(Assignment("job_test", parse_spec(document).model_dump(mode="json"), folder, num_threads=1), recorder)
    assert isinstance(recorder.events[-1], Finished), recorder.events[-1]
    return load_file(folder / RESULT_FOLDER / "student" / "model.safetensors")


def assert_alike(parts: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
    assert parts.keys() == whole.keys()
    for name, expected in whole.items():
        assert torch.allclose(parts[name], expected, atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"name": "soft-targets"}},
        {"method": {"name": "similarity-preserving"}, "training": TRAINING | {"augment": ["crop"], "views": 2}},
        {
            "method": {"name": "deep-mutual"},
            "teacher": {"architecture": transformers("vit", **STEADY)},
            "training": TRAINING | {"augment": ["mixup"]},
        },
    ],
    ids=["outputs of the teacher computed before", "computed for each view", "of a peer, on mixtures"],
)
def test_a_job_in_micro_batches_makes_the_student_of_whole_ones(changes: dict[str, Any], tmp_path: Path) -> None:
    document = DIGITS | changes
    divided = document | {"training": document["training"] | {"micro_batch": 7}}
    assert_alike(weights(divided, tmp_path / "parts"), weights(document, tmp_path / "whole"))


def test_two_ranks_divide_a_batch_and_then_its_parts(tmp_path: Path) -> None:
    """With mixtures, which the teacher sees in each step; the second rank has no share of the last part of each batch."""
    document = DIGITS | {"method": {"name": "rkd"}, "training": TRAINING | {"batch_size": 41, "augment": ["mixup"]}}
    divided = document | {"training": document["training"] | {"micro_batch": 8}}
    _, parts = test_ranks.trained(divided, tmp_path / "parts", ranks=2)
    _, whole = test_ranks.trained(document, tmp_path / "whole", ranks=1)
    assert_alike(parts, whole)


def test_a_job_that_saves_memory_in_every_way_resumes_exactly(tmp_path: Path, rows: Path) -> None:
    """With dropout, frozen embeddings and labels that are missing."""
    document = test_texts.spec(
        rows,
        targets=["label", "words", "long"],
        student={"architecture": test_texts.network("bert", test_texts.BERT), "tokenizer": test_texts.WORDPIECE},
        method={"terms": [{"name": "multi-task"}, {"name": "pkt"}]},
        training={
            "max_steps": 8,
            "batch_size": 16,
            "optimizer": {"name": "adamw-8bit"},
            "micro_batch": 5,
            "gradient_checkpointing": True,
            "freeze": ["bert.embeddings"],
        },
    )
    whole = test_texts.train(document, tmp_path / "whole")
    assert isinstance(whole.events[-1], Finished), whole.events[-1]
    stopped = test_texts.train(document, tmp_path / "again", stop_at=test_texts.STOP_AT)
    assert isinstance(stopped.events[-1], Stopped), stopped.events[-1]
    assert isinstance(test_texts.train(document, tmp_path / "again").events[-1], Finished)
    assert student(tmp_path / "again") == student(tmp_path / "whole")


def rank(pipe: Connection, index: int, rendezvous: Path, loses: int, backward: bool) -> None:
    """A rank of a training, of which one has too little memory for more than one sample at a time after the first passes."""
    torch.set_num_threads(1)
    group = join(rendezvous, rank=index, world_size=2, device=torch.device("cpu"))
    limit: dict[str, Any] = {"most": 1 if index == loses else 100, "calls": 5, "backward": backward}
    training = test_memory.training({"micro_batch": 4}, **limit, dropout=0.0, group=group)
    told = test_memory.Warnings()
    trained = train(training, told)
    pipe.send((told.told, training.savings.state(), {name: tensor.tolist() for name, tensor in trained.best.items()}))


@pytest.mark.parametrize(("loses", "backward"), [(0, False), (1, True)])
def test_where_memory_runs_out_on_one_rank_all_take_the_step_again(loses: int, backward: bool, tmp_path: Path) -> None:
    pipes, processes = [], []
    for index in range(2):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=rank, args=(theirs, index, tmp_path / "rendezvous", loses, backward)))
        processes[-1].start()
        pipes.append(ours)
    (told, savings, first), (_, others, second) = (pipe.recv() for pipe in pipes)
    for process in processes:
        process.join()
    assert savings == others == {"micro_batch": 2, "recomputes": False}
    assert len(told) == 1
    assert "step 2" in told[0]
    assert first == second
    alone = train(test_memory.training({"micro_batch": 2}, dropout=0.0), test_memory.Warnings()).best
    assert_alike({name: torch.tensor(values) for name, values in first.items()}, alone)
