"""The job spec: one pydantic model that the API, the CLI, the Python client and the trainer all read.

A stored spec is complete: defaults are filled in, so that posting it again repeats the job. Unknown fields are refused.
"""

from service.spec.job import JobSpec
from service.spec.parse import load_spec, parse_spec

__all__ = ["JobSpec", "load_spec", "parse_spec"]
