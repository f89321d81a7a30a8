"""The preflight: a job is tried, one step of each of its trainings on two samples, before it waits for a GPU.

What cannot train fails here in seconds, with the place in the spec and the remedy; what can is told what it will take.
``rows`` picks the samples, ``trial`` is the job in miniature, ``measured`` counts what its steps do, ``reckoned`` makes of that
the estimate for the whole job, ``refusal`` the last word on one that fails. Invariant: only what would end the job itself
refuses it; the check's own trouble is told as an error that another try may mend.
"""

from worker.preflight.check import check

__all__ = ["check"]
