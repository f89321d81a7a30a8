"""``stillhouse train``: a student with no service at all."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.cli import main

Spec = dict[str, object]


def arguments(spec: Spec, folder: Path) -> list[str]:
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    return ["train", str(folder / "job.yaml"), "--out", str(folder / "out")]


def command(spec: Spec, folder: Path) -> list[str]:
    return [sys.executable, "-m", "service.cli", *arguments(spec, folder)]


def exit_code_here(spec: Spec, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> object:
    """What the command ends with in this process, which has imported torch already."""
    monkeypatch.setattr(sys, "argv", ["stillhouse", *arguments(spec, folder), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_it_leaves_the_student_and_its_report_and_shows_both(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = tmp_path / "said"
    code = exit_code_here(spec, tmp_path, monkeypatch, "--teacher-cache", str(said))
    told = capsys.readouterr()
    assert code == 0, told.err
    assert list(said.rglob("outputs.json"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert f"{report['student']['test_accuracy']:.2%}" in told.out
    exec(told.out.split("Load it with:\n")[1], {})
    # Again, from the last checkpoint: the same student is not enough for another who requires more.
    assert exit_code_here({**spec, "require": {"bytes": 10}}, tmp_path, monkeypatch) == 4
    assert "the student is not accepted: bytes is" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["accepted"] is False


def test_a_preview_marks_the_tokens_that_a_language_model_learns_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [{"role": "user", "content": "one and one"}, {"role": "assistant", "content": "two"}]
    rows = [{"messages": chat, "split": "test" if row > 7 else "train"} for row in range(12)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    llama = {"name": "transformers", "model_type": "llama", "config": config}
    job = {
        "task": "causal-lm",
        "dataset": {
            "source": f"file:{tmp_path / 'chats.jsonl'}",
            "input": "messages",
            "chat_template": "{% for m in messages %}@{{ m.role }}\n{{ m.content }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}@assistant\n{% endif %}",
        },
        "teacher": {"architecture": llama, "tokenizer": {"train": "bpe", "vocab_size": 300}, "training": {"max_steps": 1}},
        "student": {"architecture": llama},
        "method": {"name": "forward-kl"},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    monkeypatch.setattr(sys, "argv", ["stillhouse", "preview", str(tmp_path / "job.yaml"), "--offline", "-n", "1"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    for shown in told.out.split("\nstudent"):
        assert "one| and| one|<|endoftext|>|@|assistant|⏎|[two]|[<|endoftext|>]| 12 tokens, 2 count" in shown


def test_interrupted_it_stops_at_a_checkpoint_and_goes_on_from_there(
    tmp_path: Path, spec: Spec, environment: dict[str, str]
) -> None:
    spec["training"] = {"epochs": 25}
    process = subprocess.Popen(command(spec, tmp_path), stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("student  steps"):
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate()
    assert process.returncode == 130
    assert "go on with: stillhouse train" in rest
    resumed = subprocess.run(command(spec, tmp_path), capture_output=True, text=True, env=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming at step" in resumed.stderr


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"dataset": {"source": "dataset:ds_1"}}, "/dataset/source"),
        ({"student": {"architecture": {"name": "small-cnn", "width": 0}}}, "/student/architecture/width"),
    ],
)
def test_what_cannot_be_trained_here_is_told_with_its_place(
    tmp_path: Path, spec: Spec, change: Spec, pointer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_here(spec | change, tmp_path, monkeypatch) == 2
    assert f"{pointer}: " in capsys.readouterr().err


def test_a_training_that_fails_says_why(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec["training"] = {"epochs": 20, "optimizer": {"name": "sgd", "learning_rate": 1000.0}}
    assert exit_code_here(spec, tmp_path, monkeypatch) == 1
    assert "non_finite_loss" in capsys.readouterr().err
