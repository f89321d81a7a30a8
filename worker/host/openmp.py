"""How the CPU threads of tensor operations wait for each other.

An OpenMP thread that has nothing to do spins, by default, which takes the core from the thread that it waits for as soon as
anything else runs on the host: two trainings side by side on two cores take many times as long as one after the other.
"""

import os


def let_idle_threads_sleep() -> None:
    """Has OpenMP's idle threads sleep soon, in this process and those it starts, unless the environment says otherwise.

    OpenMP reads it once, when torch is first imported: call it before. GNU's, which torch's own builds have, first spins for some
    microseconds, as between the operations of a small network; without that, each of them would pay for waking a thread.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
