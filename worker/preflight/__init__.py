"""The preflight: runs one step of each training of a job on two samples, before the job waits for a GPU.

What cannot train fails here in seconds, with the place in the spec and the remedy; of what can, the memory and the steps are
estimated. ``sampling`` chooses the samples, ``run`` carries out the job's plan in ``miniature``, ``given_teachers`` loads and
scores what the job does not train, ``shapes`` takes the place of networks that are too large. ``profile`` counts operations and
bytes of a step, ``findings`` collects them, ``estimate`` extrapolates them to the whole job, ``outcome`` makes the last event of
an error. ``preview`` shows what the networks read, and takes no step.
Invariant: only what would end the job itself refuses it; a failure of the check itself is retryable.
"""

from worker.preflight.check import check
from worker.preflight.preview import preview

__all__ = ["check", "preview"]
