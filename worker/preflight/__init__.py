"""The preflight: runs one step of each training of a job on two samples, before the job waits for a GPU.

What cannot train fails here in seconds, with the place in the spec and the remedy; of what can, the memory and the steps are
estimated. ``sampling`` chooses the samples, ``networks`` builds each network once, ``run`` is the attempt in miniature,
``profile`` counts operations and bytes of its steps, ``estimate`` extrapolates them to the whole job, ``outcome`` makes the last
event of an error. Invariant: only what would end the job itself refuses it; a failure of the check itself is retryable.
"""

from worker.preflight.check import check

__all__ = ["check"]
