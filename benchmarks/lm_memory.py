"""Memory of a language model's distillation loss, in chunks against all tokens at once: ``python -m benchmarks.lm_memory``.

For growing numbers of tokens and vocabularies, the loss (the divergence to a teacher, and the cross-entropy) and its gradients to
hidden states and output head are computed both ways, each in a process of its own, in turn. Memory is how far the process's peak
rises above what it held before. For the whole loss it is told in float32 tensors of all logits (tokens × vocabulary), for the
chunked one in such tensors of a chunk: it holds as many of them whatever the number of tokens. Seconds are the chunked loss's
over the whole one's, medians of some rounds: below 1, it is faster.

On a GPU (``--device cuda``) the peak is the allocator's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

SIZES = [(1024, 8_192), (1024, 16_384), (2048, 16_384), (2048, 32_768), (4096, 32_768)]


def measure(
    way: str, *, num_tokens: int, vocabulary: int, width: int, device: str, threads: int | None, rounds: int
) -> dict[str, float]:
    """Bytes above what was held before, and seconds; in a process that has done nothing else."""
    # Not in the process that starts the others: a child's peak begins at what its parent held.
    import torch
    from torch.nn import functional

    from worker.methods.output_head import CHUNK_LOGITS, CHUNK_TOKENS, OutputHead, TeacherStates, token_mean
    from worker.methods.sequence import generalized_jsd

    if threads is not None:
        torch.set_num_threads(threads)

    def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return generalized_jsd(student, teacher, beta=0.5, temperature=1.0)

    def loss(way: str, count: int) -> torch.Tensor:
        if way == "chunked":
            teacher_states = TeacherStates(taught_hidden[:count], teacher, divergence, weight=1.0)
            return token_mean(hidden[:count], head, labels[:count], label_weight=1.0, teacher_states=teacher_states)
        logits = head(hidden[:count])
        with torch.no_grad():
            answers = teacher(taught_hidden[:count])
        return divergence(logits, answers).mean() + functional.cross_entropy(logits, labels[:count])

    torch.manual_seed(0)
    hidden, taught_hidden = (torch.randn(num_tokens, width, device=device) for _ in range(2))
    hidden.requires_grad_()
    head, teacher = (OutputHead(torch.randn(vocabulary, width, device=device, requires_grad=True)) for _ in range(2))
    labels = torch.randint(vocabulary, (num_tokens,), device=device)
    torch.autograd.backward(loss("whole", 2))  # threads, kernels and the gradients' own memory are there

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    before = peak_bytes(device)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        value = loss(way, num_tokens)
        torch.autograd.backward(value)
        value.item()  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(seconds),
        "bytes": peak_bytes(device) - before,
        "all_logits": 4 * num_tokens * vocabulary,
        "chunk_logits": 4 * vocabulary * min(num_tokens, max(CHUNK_TOKENS, CHUNK_LOGITS // vocabulary)),
    }


def peak_bytes(device: str) -> int:
    """The most that this process held at any time; on a GPU, since the count was last reset."""
    if device == "cpu":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    import torch

    return torch.cuda.max_memory_allocated(device)


def measured(way: str, **setting: Any) -> dict[str, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.lm_memory", "--measure", json.dumps({"way": way, **setting})]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=64, help="of the hidden states")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(**json.loads(arguments.measure))))
        return
    print(f"{'':22}  {'whole':>14}  {'chunked':>14}  {'chunked / whole':>20}")
    print(f"{'tokens':>10}{'vocabulary':>12}  {'x all logits':>14}  {'x one chunk':>14}  {'memory':>10}{'seconds':>10}")
    for num_tokens, vocabulary in SIZES:
        whole, chunked = (
            measured(
                way,
                num_tokens=num_tokens,
                vocabulary=vocabulary,
                width=arguments.width,
                device=arguments.device,
                threads=arguments.threads,
                rounds=arguments.rounds,
            )
            for way in ("whole", "chunked")
        )
        print(
            f"{num_tokens:10,}{vocabulary:12,}  {whole['bytes'] / whole['all_logits']:14.1f}"
            f"  {chunked['bytes'] / chunked['chunk_logits']:14.1f}"
            f"  {chunked['bytes'] / whole['bytes']:10.2f}{chunked['seconds'] / whole['seconds']:10.2f}"
        )


if __name__ == "__main__":
    main()
