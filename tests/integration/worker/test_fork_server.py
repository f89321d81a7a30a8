"""What the fork server must never have done before it forks: a tensor operation on threads, or a question to CUDA.

And that nobody waits for one that does not answer.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Even counting the devices initialises the driver, which no child can use afterwards. And a forked child of a process whose
# OpenMP threads have started waits for them forever.
_NOTHING_DONE = """
import os, torch
def asked(*_, **__): raise SystemExit("CUDA was asked")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, asked)
import worker.preload
print(torch.cuda.is_initialized())
def threads(): return len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
before = threads()
torch.ones(512, 512) @ torch.ones(512, 512)
torch.ones(1_000_000).add(1)
print(threads() - before)
"""

# A trainer's own start, forked twice: the second would hang if the first left threads behind in the server.
_TWO_FORKS = """
import os
from worker.host.fork_server import context, warm_up
def multiply(pipe):
    import torch
    torch.set_num_threads(2)
    pipe.send(float((torch.ones(512, 512) @ torch.ones(512, 512)).sum()))
    pipe.send(os.environ["OMP_WAIT_POLICY"])
if __name__ == "__main__":
    warm_up()
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=multiply, args=(theirs,))
        process.start()
        print(ours.recv(), ours.recv())
        process.join()
"""

# As none of these computes anything, their fork servers import nothing.
_NO_ANSWER = """
import os, signal
from functools import partial
from worker.host import fork_server
from worker.host.fork_server import SERVER_LOST, fork, wait_for
from worker.host.spares import Spares
def tell(pipe):
    pipe.send(os.getppid())
    pipe.recv()
def ask():
    forked = fork(tell)
    return forked, forked.pipe.recv()
def the_next_fork_starts_another(forked):
    pass
def the_end_of_a_process_is_told(forked):
    forked.process.kill()
    wait_for(forked.process)
def spares_are_ended(forked):
    spares.close()
if __name__ == "__main__":
    for number in (signal.SIGKILL, signal.SIGSTOP):
        for act in (the_next_fork_starts_another, the_end_of_a_process_is_told, spares_are_ended):
            forked, server = ask()
            spares = Spares(partial(fork, tell), count=1)
            spares.fill()
            fork_server._LOOK_SECONDS = 0.02 if number == signal.SIGSTOP else 60
            os.kill(server, number)
            act(forked)
            fork_server._LOOK_SECONDS = 0.1
            assert ask()[1] != server
            fork_server._LOOK_SECONDS = 1
            wait_for(forked.process)
            print(forked.process.exitcode == SERVER_LOST, spares.take())
            spares.close()
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_what_is_preloaded_has_asked_cuda_for_nothing_and_run_no_operation_on_threads() -> None:
    done = subprocess.run([sys.executable, "-c", _NOTHING_DONE], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    is_initialized, num_threads = done.stdout.split()
    assert is_initialized == "False"
    assert int(num_threads) > 0, "the threads were there before the first operation"


def test_trainers_forked_one_after_the_other_compute_on_threads_that_sleep_when_idle(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(_TWO_FORKS)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, env=environment)
    assert done.stdout.split() == [str(float(512**3)), "PASSIVE"] * 2, done.stderr


def test_a_fork_server_that_does_not_answer_is_replaced(tmp_path: Path) -> None:
    script = tmp_path / "no_answer.py"
    script.write_text(_NO_ANSWER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, env=environment)
    assert done.stdout.splitlines() == ["True None"] * 6, done.stderr
