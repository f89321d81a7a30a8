"""OpenMP's wait policy for the CPU threads of tensor operations.

An idle OpenMP thread spins by default, and so takes the core from the thread that it waits for as soon as anything else runs on
the host: two trainings side by side on two cores take many times as long as one after the other.
"""

import os


def let_idle_threads_sleep() -> None:
    """Makes OpenMP's idle threads sleep soon, in this process and its children, unless the environment sets another policy.

    Call it before torch is first imported, which is when OpenMP reads the environment. GNU's implementation, which PyTorch ships,
    still spins for some microseconds, as between the operations of a small network: without that each would wait for a wake-up.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
