"""Two processes on one host train as one would: the same losses of the same batches, one end for both."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from service.spec import parse_spec
from tests.integration.test_embeddings import SOURCE, teacher
from tests.integration.test_embeddings import spec as embedding_spec
from tests.integration.test_sound import CNN
from tests.integration.test_sound import spec as sound_spec
from worker import standalone
from worker.host import trainer_process
from worker.host.executor import LocalExecutor, Trainer, follow
from worker.host.fork_server import context, warm_up
from worker.host.trainer_process import _main
from worker.protocol import (
    CHECKPOINT_FILE,
    LOG_FILE,
    RESULT_FOLDER,
    Assignment,
    CheckpointWritten,
    Event,
    Failed,
    Finished,
    HostDevices,
    MetricPoints,
    PhaseStarted,
    Progress,
    Stopped,
    StopRequest,
    decode_event,
)
from worker.training.checkpoint import read_checkpoint

__all__ = ["teacher"]

TOLERANCE = 2e-4
SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
# 1,259 images: the last of the batches of 250 has nine, which two ranks share as five and four.
TRAINING: dict[str, Any] = {"max_steps": 7, "batch_size": 250, "optimizer": SGD}
DIGITS: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"source": "builtin:digits"},
    "teacher": {"architecture": {"name": "resnet20"}, "training": {"max_steps": 2, "batch_size": 33, "optimizer": SGD}},
    "student": {"architecture": {"name": "small-cnn", "width": 4}},
    "method": {"name": "soft-targets"},
    "training": TRAINING,
}
STEADY = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
GPT2 = {"n_embd": 8, "n_layer": 1, "n_head": 2, **STEADY}
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
VIT = {**BERT, "patch_size": 4, "hidden_dropout_prob": 0.1}


def transformers(model_type: str, **config: Any) -> dict[str, Any]:
    return {"name": "transformers", "model_type": model_type, "config": config}


Points = dict[str, list[tuple[int, float]]]


def points_of(events: list[Event]) -> Points:
    points: Points = {}
    for event in events:
        if isinstance(event, MetricPoints):
            for name, values in event.points.items():
                points.setdefault(name, []).extend((step, value) for step, value in values)
    return points


def approximately(points: Points) -> dict[str, Any]:
    return {name: [(step, pytest.approx(value, rel=TOLERANCE)) for step, value in values] for name, values in points.items()}


@dataclass
class Ended:
    """What an attempt said, and how it ended."""

    folder: Path
    exit_code: int
    events: list[Event] = field(default_factory=list)

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def points(self) -> Points:
        return points_of(self.events)

    @property
    def log(self) -> str:
        return (self.folder / LOG_FILE).read_text()

    @property
    def student(self) -> bytes:
        return (self.folder / RESULT_FOLDER / "student" / "model.safetensors").read_bytes()


Watch = Callable[[Event, Trainer], None]


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    warm_up()


def assignment(
    spec: dict[str, Any], folder: Path, *, devices: tuple[str, ...], inputs: Mapping[str, Path] | None = None
) -> Assignment:
    """With a thread for each device."""
    folder.mkdir(exist_ok=True)
    source, number = spec["dataset"]["source"], len(devices)
    resources = {"cpu_slots": number} if devices[0] == "cpu" else {"gpus": number}
    return Assignment(
        job_id="job_test",
        spec=parse_spec(spec | {"resources": resources}).model_dump(mode="json"),
        folder=folder,
        inputs={source: Path(source.removeprefix("file:"))} if source.startswith("file:") else dict(inputs or {}),
        placement=(HostDevices(devices=devices),),
        cache=folder / "cache",
        num_threads=number,
    )


def train(
    spec: dict[str, Any],
    folder: Path,
    *,
    devices: tuple[str, ...] = ("cpu", "cpu"),
    inputs: Mapping[str, Path] | None = None,
    watch: Watch = lambda event, trainer: None,
) -> Ended:
    """One attempt."""
    trainer = LocalExecutor().start(assignment(spec, folder, devices=devices, inputs=inputs))
    events = []

    def on_event(event: Event) -> None:
        events.append(event)
        watch(event, trainer)

    ending = follow(trainer, on_event=on_event)
    return Ended(folder, ending.exit_code, events)


def trained(
    spec: dict[str, Any], folder: Path, *, ranks: int, inputs: Mapping[str, Path] | None = None
) -> tuple[Ended, dict[str, torch.Tensor]]:
    """An attempt up to where its last network is trained, and the student's last weights."""

    def end(event: Event, trainer: Trainer) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "evaluation":
            trainer.kill()

    ended = train(spec, folder, devices=("cpu",) * ranks, inputs=inputs, watch=end)
    assert not isinstance(ended.last, Failed), ended.last
    return ended, read_checkpoint(folder / CHECKPOINT_FILE)["finished"]["student"]["last"]


def group_of_one(spec: dict[str, Any], folder: Path, *, device: str) -> list[Event]:
    """What one rank says that meets nobody else."""
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_main, args=(theirs, (assignment(spec, folder, devices=(device,)), 0, folder / "rendezvous"))
    )
    process.start()
    theirs.close()
    events = []
    with suppress(EOFError):
        while True:
            events.append(decode_event(ours.recv_bytes()))
    process.join()
    return events


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of one to four words, each with a class, what it is of two things, its weight and, for two of three, a number."""
    words = {"colour": ["red", "green", "blue"], "animal": ["cat", "dog", "horse", "mouse"], "tree": ["oak", "elm", "pine"]}
    lines = []
    for index in range(120):
        kind, number = list(words)[index % 3], 1 + index % 4
        text = " ".join(words[kind][(index // 3 + place) % len(words[kind])] for place in range(number))
        row = {"text": text, "label": kind, "words": None if index % 3 == 2 else float(number)}
        traits = [name for name, has in (("alive", kind != "colour"), ("short", number < 3)) if has]
        lines.append(json.dumps(row | {"traits": traits, "trust": (0.0, 0.5, 1.0, 3.0)[index // 3 % 4]}))
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def of_texts(path: Path, **changes: Any) -> dict[str, Any]:
    wordpiece = {"train": "wordpiece", "vocab_size": 100, "max_length": 16}
    return {
        "task": "text-classification",
        "dataset": {"source": f"file:{path}", "targets": ["label", "words"]},
        "teacher": {"architecture": transformers("bert", **BERT), "tokenizer": wordpiece, "training": {"max_steps": 2}},
        "student": {"architecture": transformers("bert", **BERT)},
        "method": {"name": "multi-task", "weighting": "uncertainty"},
        "training": {"max_steps": 6, "batch_size": 17, "optimizer": SGD},
    } | changes


def of_language(path: Path, method: dict[str, Any], *, packing: str) -> dict[str, Any]:
    tokenizer = {"train": "bpe", "vocab_size": 300, "max_length": 16}
    return {
        "task": "causal-lm",
        "dataset": {"source": f"file:{path}", "packing": packing},
        "teacher": {
            "architecture": transformers("gpt2", **GPT2 | {"n_embd": 16}),
            "tokenizer": tokenizer,
            "training": {"max_steps": 2, "batch_size": 9, "optimizer": SGD},
        },
        "student": {"architecture": transformers("gpt2", **GPT2)},
        "method": method,
        "training": {"max_steps": 5, "batch_size": 9, "optimizer": SGD},
    }


def assert_same(spec: dict[str, Any], folder: Path, *, ranks: int = 2, inputs: Mapping[str, Path] | None = None) -> None:
    (one, of_one), (many, of_many) = (trained(spec, folder / str(number), ranks=number, inputs=inputs) for number in (1, ranks))
    assert many.points == approximately(one.points)
    for name, weights in of_one.items():
        assert torch.allclose(of_many[name], weights, atol=1e-4, rtol=1e-3), name


IMAGES: dict[str, dict[str, Any]] = {
    "soft targets": {},
    "a network with more batch norm, in accumulated batches": {
        "student": {"architecture": {"name": "resnet8x4"}},
        "training": TRAINING | {"batch_size": 63, "gradient_accumulation": 2, "gradient_clip_norm": 1.0, "max_steps": 3},
    },
    "relations between the samples of a batch": {"method": {"name": "rkd"}, "training": TRAINING | {"batch_size": 90}},
    "a regressor with batch norm of its own": {"method": {"name": "fitnet", "label_weight": 0.0}},
    "memory banks and drawn negatives": {"method": {"name": "crd", "negatives": 64}},
    "two networks at the same time": {
        "method": {"name": "deep-mutual"},
        "teacher": {"architecture": {"name": "small-cnn", "width": 3}},
    },
    "mixtures of samples, seen by the teacher in each step": {
        "training": TRAINING | {"augment": [{"name": "crop", "padding": 1}, {"name": "mixup"}]},
    },
    "a frozen stage with batch norm, and rates by depth": {
        "training": TRAINING | {"freeze": ["features.0", "features.1"], "layer_decay": 0.5, "head_learning_rate": 0.1},
    },
    "maps of attention": {"method": {"name": "attention-transfer"}},
    "two layers of a chain": {"method": {"name": "born-again", "generations": 2}, "training": TRAINING | {"max_steps": 3}},
    "relations of logits": {"method": {"name": "correlation-congruence"}, "training": TRAINING | {"batch_size": 90}},
    "a batch of one, which the other rank has no share of": {"training": TRAINING | {"batch_size": 1, "max_steps": 3}},
}


@pytest.mark.parametrize("changes", IMAGES.values(), ids=IMAGES)
def test_two_ranks_have_the_losses_of_one(changes: dict[str, Any], tmp_path: Path) -> None:
    assert_same(DIGITS | changes, tmp_path)


def test_ranks_whose_first_one_cannot_keep_the_outputs_of_the_teacher_have_the_losses_of_one(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cache").write_text("no folder")
    assert_same(DIGITS | {"training": TRAINING | {"max_steps": 2}}, tmp_path)
    assert "not cached for later jobs" in (tmp_path / "2" / LOG_FILE).read_text()


def test_three_ranks_have_the_losses_of_one_where_two_have_a_share(tmp_path: Path) -> None:
    assert_same(DIGITS | {"training": TRAINING | {"batch_size": 2, "max_steps": 3}}, tmp_path, ranks=3)


def test_two_ranks_have_the_losses_of_one_on_embeddings(teacher: Path, tmp_path: Path) -> None:
    document = embedding_spec(training={"max_steps": 6, "batch_size": 33, "optimizer": SGD})
    steady = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    document["student"]["architecture"]["config"] |= steady
    assert_same(document, tmp_path, inputs={SOURCE: teacher})


def test_two_ranks_have_the_losses_of_one_on_sound(spoken_digits: Path, tmp_path: Path) -> None:
    document = sound_spec(spoken_digits, {"name": "soft-targets"}, teacher=CNN, student=CNN)
    assert_same(document | {"training": {"max_steps": 4, "batch_size": 9, "optimizer": SGD}}, tmp_path)


def test_two_ranks_have_the_losses_of_one_on_several_targets_of_texts(texts: Path, tmp_path: Path) -> None:
    assert_same(of_texts(texts), tmp_path)


@pytest.mark.parametrize(
    ("target", "of_labels"), [("label", {"label_smoothing": 0.1}), ("traits", {"class_weights": "balanced"})]
)
def test_two_ranks_have_the_losses_of_one_on_rows_with_weights(
    texts: Path, tmp_path: Path, target: str, of_labels: dict[str, Any]
) -> None:
    dataset = {"source": f"file:{texts}", "targets": [target], "weight": "trust"}
    training = {"max_steps": 6, "batch_size": 17, "optimizer": SGD} | of_labels
    assert_same(of_texts(texts, dataset=dataset, method={"name": "soft-targets"}, training=training), tmp_path)


def test_two_ranks_have_the_losses_of_one_on_the_tokens_inside_two_networks(texts: Path, tmp_path: Path) -> None:
    dataset = {"source": f"file:{texts}"}
    assert_same(of_texts(texts, dataset=dataset, method={"name": "distilbert"}), tmp_path)


@pytest.mark.parametrize(
    ("packing", "method"),
    [("isolated", {"name": "forward-kl"}), ("padded", {"name": "sequence", "max_new_tokens": 4, "prompt_tokens": 2})],
)
def test_two_ranks_have_the_losses_of_one_on_next_tokens(
    texts: Path, tmp_path: Path, packing: str, method: dict[str, Any]
) -> None:
    assert_same(of_language(texts, method, packing=packing), tmp_path)


def test_a_group_of_one_rank_has_the_losses_of_none(tmp_path: Path) -> None:
    """What a host with one GPU can test of the way that several take."""
    alone, _ = trained(DIGITS, tmp_path / "alone", ranks=1)
    assert points_of(group_of_one(DIGITS, tmp_path / "group", device="cpu")) == approximately(alone.points)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_in_a_group_of_its_own_makes_a_student(tmp_path: Path) -> None:
    assert isinstance(group_of_one(DIGITS, tmp_path, device="cuda:0")[-1], Finished)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_have_the_losses_of_one(tmp_path: Path) -> None:
    training = TRAINING | {"precision": "fp32"}
    one, two = (
        train(DIGITS | {"training": training}, tmp_path / str(number), devices=tuple(f"cuda:{index}" for index in range(number)))
        for number in (1, 2)
    )
    assert isinstance(two.last, Finished), two.last
    assert two.points["student/train_loss"] == approximately(one.points)["student/train_loss"]


# ------------------------------------------------------------ one end for both


WITH_DROPOUT: dict[str, Any] = DIGITS | {
    "teacher": {"architecture": {"name": "small-cnn", "width": 2}, "training": {"max_steps": 2}},
    "student": {"architecture": transformers("vit", **VIT)},
    "method": {"name": "crd", "negatives": 16},
    "training": {"max_steps": 12, "batch_size": 125, "checkpoint_steps": 3},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    ended = train(WITH_DROPOUT, tmp_path_factory.mktemp("undisturbed") / "job")
    assert isinstance(ended.last, Finished), ended.last
    return ended


def at_checkpoint(step: int, act: Callable[[Trainer], None]) -> Watch:
    def watch(event: Event, trainer: Trainer) -> None:
        if isinstance(event, CheckpointWritten) and (event.phase, event.step) == ("student", step):
            act(trainer)

    return watch


def assert_gone(trainers: list[Trainer]) -> None:
    assert not [pid for trainer in trainers for pid in trainer.pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_attempt_and_a_resumed_one_makes_the_same_student(
    undisturbed: Ended, tmp_path: Path, rank: int
) -> None:
    seen: list[Trainer] = []

    def kill(trainer: Trainer) -> None:
        seen.append(trainer)
        os.kill(trainer.pids[rank], signal.SIGKILL)

    killed = train(WITH_DROPOUT, tmp_path, watch=at_checkpoint(6, kill))
    assert killed.exit_code == -signal.SIGKILL
    assert not isinstance(killed.last, Finished | Stopped | Failed)
    assert f"rank {rank} of 2 ended with exit code -9" in killed.log
    assert_gone(seen)

    resumed = train(WITH_DROPOUT, tmp_path)
    assert isinstance(resumed.last, Finished)
    assert "Resuming at step 6" in resumed.log
    assert resumed.student == undisturbed.student
    assert not list(tmp_path.glob("rendezvous-*"))


def test_a_stop_reaches_both_ranks_at_the_same_step(undisturbed: Ended, tmp_path: Path) -> None:
    stopped = train(WITH_DROPOUT, tmp_path, watch=at_checkpoint(3, lambda trainer: trainer.ask_to_stop(StopRequest("drain"))))
    assert stopped.last == Stopped("drain")
    assert stopped.exit_code == 0

    resumed = train(WITH_DROPOUT, tmp_path)
    assert isinstance(resumed.last, Finished)
    assert resumed.student == undisturbed.student


def test_a_cancel_keeps_the_student_of_the_first_rank(tmp_path: Path) -> None:
    cancel = at_checkpoint(3, lambda trainer: trainer.ask_to_stop(StopRequest("cancel", keep="last")))
    assert train(WITH_DROPOUT, tmp_path, watch=cancel).last == Stopped("cancel")
    assert (tmp_path / RESULT_FOLDER / "student" / "model.safetensors").exists()


def test_as_many_ranks_as_before_go_on_and_others_start_over(tmp_path: Path) -> None:
    train(WITH_DROPOUT, tmp_path, watch=at_checkpoint(3, lambda trainer: trainer.kill()))

    def end(event: Event, trainer: Trainer) -> None:
        if isinstance(event, Progress):
            trainer.kill()

    alone = train(WITH_DROPOUT, tmp_path, devices=("cpu",), watch=end)
    assert "belongs to another spec" in alone.log
    assert any(isinstance(event, Progress) and event.phase == "teacher" for event in alone.events)


def test_a_loss_that_is_not_finite_fails_the_job_as_in_one_process(tmp_path: Path) -> None:
    wild = {"max_steps": 200, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 1000.0}}
    spec = DIGITS | {"teacher": {"architecture": {"name": "small-cnn", "width": 2}, "training": wild}}
    one, two = (train(spec, tmp_path / str(ranks), devices=("cpu",) * ranks).last for ranks in (1, 2))
    assert isinstance(one, Failed)
    assert isinstance(two, Failed)
    # In which step exactly is chaos by then.
    assert (two.code, two.details["phase"]) == (one.code, one.details["phase"]) == ("non_finite_loss", "teacher")


def test_what_one_rank_alone_fails_of_is_what_the_job_fails_of(tmp_path: Path) -> None:
    spec = DIGITS | {"training": {"max_steps": 1000, "batch_size": 250}, "student": {"architecture": {"name": "resnet8x4"}}}

    def starve(event: Event, trainer: Trainer) -> None:
        if isinstance(event, Progress) and event.phase == "student":
            second = psutil.Process(trainer.pids[1])
            second.rlimit(psutil.RLIMIT_AS, (2**20, 2**20))

    failed = train(spec, tmp_path, watch=starve)
    assert isinstance(failed.last, Failed)
    assert failed.last.code == "out_of_memory"


def _one_is_lost(pipe: Connection, part: tuple[Assignment, int, Path | None]) -> None:
    """In the place of a rank: the first believes that another is gone, which waits for it."""
    if part[1] == 0:
        os._exit(trainer_process.RANK_LOST)
    time.sleep(600)


def test_a_rank_that_ends_for_another_which_lives_ends_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_process, "_main", _one_is_lost)
    monkeypatch.setattr(trainer_process, "CULPRIT_SECONDS", 1.0)
    ended = train(DIGITS, tmp_path)
    assert ended.exit_code == trainer_process.RANK_LOST
    assert "rank 0 of 2 ended with exit code 75" in ended.log


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from service.spec import load_spec
from worker import standalone
from worker.protocol import CheckpointWritten, Stopped

def interrupt(event):
    if isinstance(event, CheckpointWritten) and (event.phase, event.step) == ("student", 3):
        os.killpg(0, signal.SIGINT)  # as a terminal does, to the command and all that it started

assert standalone.train(load_spec(Path(sys.argv[1])), Path(sys.argv[2]), interrupt) == Stopped("pause")
"""


def test_without_a_service_too_there_is_a_process_for_each_device_and_ctrl_c_stops_them_all(tmp_path: Path) -> None:
    spec = WITH_DROPOUT | {"resources": {"cpu_slots": 2}}
    (tmp_path / "job.json").write_text(json.dumps(spec))
    out = tmp_path / "out"
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "job.json"), str(out)]
    subprocess.run(command, check=True, start_new_session=True)

    events: list[Event] = []
    assert isinstance(standalone.train(parse_spec(spec), out, events.append), Finished)
    assert "Resuming at step" in (out / LOG_FILE).read_text()
    assert (out / "student" / "model.safetensors").exists()
