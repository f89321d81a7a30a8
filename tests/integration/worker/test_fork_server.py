"""What the fork server must never have done before it forks: a tensor operation on threads, or a question to CUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# A forked child of a process whose OpenMP threads have started waits for them forever.
_NO_OPERATION = """
import os, torch, worker.preload
def threads(): return len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
before = threads()
torch.ones(512, 512) @ torch.ones(512, 512)
torch.ones(1_000_000).add(1)
print(threads() - before)
"""

# Even counting the devices initialises the driver, which no child can use afterwards.
_NO_CUDA = """
import torch
def asked(*_, **__): raise SystemExit("CUDA was asked")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, asked)
import worker.preload
print(torch.cuda.is_initialized())
"""

# A trainer's own start, forked twice: the second would hang if the first left threads behind in the server.
_TWO_FORKS = """
import os
from worker.host.trainer_process import _context, warm_up
def multiply(pipe):
    import torch
    torch.set_num_threads(2)
    pipe.send(float((torch.ones(512, 512) @ torch.ones(512, 512)).sum()))
    pipe.send(os.environ["OMP_WAIT_POLICY"])
if __name__ == "__main__":
    warm_up()
    for _ in range(2):
        ours, theirs = _context.Pipe()
        process = _context.Process(target=multiply, args=(theirs,))
        process.start()
        print(ours.recv(), ours.recv())
        process.join()
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_what_is_preloaded_has_run_no_operation_on_threads() -> None:
    assert int(run(_NO_OPERATION)) > 0, "the threads were there before the first operation"


def test_what_is_preloaded_has_asked_cuda_for_nothing() -> None:
    assert run(_NO_CUDA).strip() == "False"


def test_trainers_forked_one_after_the_other_compute_on_threads_that_sleep_when_idle(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(_TWO_FORKS)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, env=environment)
    assert done.stdout.split() == [str(float(512**3)), "PASSIVE"] * 2, done.stderr
