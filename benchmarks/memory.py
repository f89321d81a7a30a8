"""The memory of a pair of language models in each number format: ``python -m benchmarks.memory [--size NAME] [--model FOLDER]``.

For each way to hold them, a process of its own trains a student on its teacher's outputs for a few steps, up to the evaluation
of its last weights, and another one checks the same job, as before it waits. Told is what the job took beyond what a trainer
holds when it is forked (``anon``: its own pages; ``file``: pages of files, which the system takes back when it needs them;
``peak``: the most of both at once, with pages that were read only once), what the check expects, its ratio to the own pages and
those of files in the end, and how much of the first way that is: both in float32, from files in bf16, as models are published.

Pairs are made from a config with random weights, unless ``--model`` names a ``from_pretrained`` folder of a llama: its student
has half of its layers. With a GPU, the peak is its allocator's.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MIB = 2**20
ROW_TOKENS = 64
BATCH = 8
STEPS = 3
SIZES: Mapping[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 2},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
    "350m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16},
    "billion": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 18, "num_attention_heads": 16},
}
VOCABULARY = 49_152
ADAFACTOR = {"name": "adafactor"}
WAYS: Mapping[str, dict[str, Any]] = {
    "both in fp32": {"dtype": "fp32"},
    "teacher as its files, bf16": {"dtype": "auto"},
    "teacher in int8": {"dtype": "int8"},
    "teacher in int4": {"dtype": "int4"},
    "both in bf16": {"dtype": "bf16", "weights": "bf16"},
    "teacher in int4, student in bf16": {"dtype": "int4", "weights": "bf16"},
    "the same with adafactor": {"dtype": "int4", "weights": "bf16", "optimizer": ADAFACTOR},
    "the same in micro batches of 2": {"dtype": "int4", "weights": "bf16", "optimizer": ADAFACTOR, "micro_batch": 2},
    "itself with an adapter, both in bf16": {"dtype": "bf16", "weights": "bf16", "adapter": {"name": "lora"}},
}


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description="What a pair of models takes in each number format, and is expected to.")
    parser.add_argument("--size", choices=SIZES, default="135m")
    parser.add_argument("--model", type=Path, help="a folder of a llama with its tokenizer, in place of random weights")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        print(json.dumps({"train": _train, "check": _check, "make": _make}[options.run](options.folder, json.load(sys.stdin))))
        return
    with TemporaryDirectory() as made:
        folder = Path(made)
        config = _in_process("make", folder, {"size": options.size, "model": options.model and str(options.model)})
        print(f"{config['parameters']:,} and about half of that; {BATCH} rows of {ROW_TOKENS} tokens a step; MiB")
        print(f"{'way':40} {'anon':>7} {'file':>7} {'peak':>7} {'gpu':>7} {'expected':>9} {'ratio':>6} {'of fp32':>8}")
        first: float | None = None
        for name in options.ways:
            spec = _spec(folder, config["student"], WAYS[name])
            took, expected = _in_process("train", folder, spec), _in_process("check", folder, spec)
            used = took["gpu"] or took["used"]
            first = first or used
            print(
                f"{name:40} {took['anon']:7,.0f} {took['file']:7,.0f} {took['peak']:7,.0f} {took['gpu'] or 0:7,.0f} "
                f"{expected:9,.0f} {expected / used:6.2f} {used / first:8.2f}",
                flush=True,
            )


def _spec(folder: Path, student: Mapping[str, int], way: Mapping[str, Any]) -> dict[str, Any]:
    architecture = {"name": "transformers", "model_type": "llama", "config": dict(student)}
    adapter = way.get("adapter")
    of_it = {"source": f"file:{folder / 'model'}", "adapter": adapter} if adapter else {"architecture": architecture}
    return {
        "task": "causal-lm",
        "dataset": {"source": f"file:{folder / 'texts.jsonl'}", "row_tokens": ROW_TOKENS},
        "teacher": {"source": f"file:{folder / 'model'}", "dtype": way["dtype"], "accept_score": "any"},
        "student": of_it | {"weights": way.get("weights", "fp32")},
        "method": {"name": "forward-kl"},
        "evaluation": {"control": False},
        "training": {
            "max_steps": STEPS,
            "batch_size": BATCH,
            "optimizer": way.get("optimizer", {"name": "adamw"}),
            "micro_batch": way.get("micro_batch"),
        },
    }


def _in_process(what: str, folder: Path, given: dict[str, Any]) -> Any:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--run", what, "--folder", str(folder)]
    ended = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2_000:])
    return json.loads(ended.stdout.splitlines()[-1])


def _make(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Writes the teacher's folder in bf16, and texts; returns the config of a student with half of its layers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from worker.data.text.tokenization import save_tokenizer, train_tokenizer

    texts = [line for path in sorted(Path("docs").glob("*.md")) for line in path.read_text(encoding="utf-8").splitlines() if line]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:300]), encoding="utf-8")
    if given["model"] is not None:
        model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.bfloat16)
        AutoTokenizer.from_pretrained(given["model"]).save_pretrained(folder / "model")
    else:
        tokenizer = train_tokenizer(texts, "bpe", 2_000)
        save_tokenizer(tokenizer, folder / "model", max_length=ROW_TOKENS)
        config = LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, dtype="bfloat16", **SIZES[given["size"]])
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "model")
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    student = {name: getattr(model.config, name) for name in names} | {"tie_word_embeddings": True}
    student["num_hidden_layers"] //= 2
    return {"parameters": sum(each.numel() for each in model.parameters()), "student": student}


class _Enough(BaseException):
    """The training is over; no error of a job."""


class _Watching:
    """Watches the process's memory, and ends a job when its training and the evaluations of that are over."""

    def __init__(self) -> None:
        self._before = _resident()
        self.anon = self.file = self.peak = self.used = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def emit(self, event: Any) -> None:
        if type(event).__name__ == "Failed":
            raise RuntimeError(event.message)
        if type(event).__name__ == "PhaseStarted" and event.phase == "evaluation":
            # What the files' pages are in the end are those that stay.
            self.used = self.anon + self._now()[1]
            raise _Enough

    def stop_request(self) -> None:
        return None

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _now(self) -> tuple[float, float]:
        anon, file = _resident()
        return anon - self._before[0], file - self._before[1]

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            anon, file = self._now()
            self.anon, self.file, self.peak = max(self.anon, anon), max(self.file, file), max(self.peak, anon + file)


def _train(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Trains for a few steps; MiB of the process's own pages, of its files' and of both, at their peaks."""
    import torch

    import worker.preload  # noqa: F401 - a trainer of a host is forked from what has imported this
    from worker.job.attempt import run
    from worker.protocol import HostDevices

    on_gpu = torch.cuda.is_available()
    watching = _Watching()
    with suppress(_Enough):
        run(_assignment(folder, spec, (HostDevices(devices=("cuda:0",)),) if on_gpu else None), watching)
    watching.end()
    gpu = torch.cuda.max_memory_reserved() / MIB if on_gpu else None
    return {"anon": watching.anon, "file": watching.file, "peak": watching.peak, "used": watching.used, "gpu": gpu}


def _check(folder: Path, spec: dict[str, Any]) -> float:
    """The MiB that the check expects."""
    import torch

    from worker.preflight.check import check
    from worker.protocol import Checked

    if torch.cuda.is_available():
        spec = spec | {"resources": {"gpus": 1}}
    events: list[Any] = []

    class Events:
        def emit(self, event: Any) -> None:
            events.append(event)

        def stop_request(self) -> None:
            return None

    check(_assignment(folder, spec, None), Events())
    if not isinstance(events[-1], Checked):
        raise RuntimeError(f"the check ended with {events[-1]}")
    return float(events[-1].estimate["memory_gib"]) * 1024


def _assignment(folder: Path, spec: dict[str, Any], placement: Any) -> Any:
    from service.spec import parse_spec
    from worker.protocol import Assignment, HostDevices

    whole = parse_spec(spec).model_dump(mode="json")
    inputs = {source: Path(source.removeprefix("file:")) for source in (spec["dataset"]["source"], spec["teacher"]["source"])}
    scratch = folder / f"scratch-{os.getpid()}"
    scratch.mkdir()
    return Assignment("benchmark", whole, scratch, inputs=inputs, placement=placement or (HostDevices(),), num_threads=1)


def _resident() -> tuple[float, float]:
    """MiB of this process's own pages, and of files' pages, that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return kib["RssAnon"] / 1024, kib["RssFile"] / 1024


if __name__ == "__main__":
    main()
