"""What is said of a job that failed."""

from service.cli.following import failure_text
from service.client import Job
from service.errors import JobFailure


def test_a_failure_is_told_with_its_place_and_its_remedy() -> None:
    error = JobFailure(code="preflight_failed", message="no layer 'x'", hint="Choose others.", details={"pointer": "/method"})
    job = Job(id="job_1", status="failed", terminal=True, error=error)
    assert failure_text(job) == "job_1 failed: preflight_failed: /method: no layer 'x'\n  Choose others."
    job = Job(id="job_1", status="failed", terminal=True, error=error.model_copy(update={"details": {}}))
    assert "preflight_failed: no layer" in failure_text(job)
