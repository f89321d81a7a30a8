"""How the CPU threads of tensor operations wait for each other.

An OpenMP thread that has nothing to do spins, by default, which takes the core from the thread that it waits for as soon as
anything else runs on the host: two trainings side by side on two cores take many times as long as one after the other.
"""

import os


def let_idle_threads_sleep() -> None:
    """Has OpenMP's idle threads sleep, in this process and those it starts, unless the environment says otherwise.

    OpenMP reads it once, when torch is first imported: call it before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
