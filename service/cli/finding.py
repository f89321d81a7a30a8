"""Finds the job that a command means: by its id, by the beginning of it, or by its name."""

import itertools
import re

from service.cli.failure import CommandFailed
from service.client import Client, Job
from service.client.address import address

_WHOLE = re.compile(r"job_[0-9a-z]{26}")
_SEARCHED = 1_000
"""Jobs that a beginning or a name is looked for among, newest first."""
_SHOWN = 5


def find_job(text: str) -> str:
    """Returns the id of the job. Raises CommandFailed if none is meant, or several."""
    address("jobs", text)  # raises InvalidId for what is no name either
    if _WHOLE.fullmatch(text):
        return text
    with Client() as client:
        found = [job for job in itertools.islice(client.jobs(), _SEARCHED) if _is_meant(job, text)]
    if len(found) == 1:
        return found[0].id
    if not found:
        raise CommandFailed(
            f"no job's id begins with {text!r}, and none of the last {_SEARCHED:,} has that name; stillhouse ls lists them"
        )
    listed = "".join(f"\n  {job.id}  {job.name}" for job in found[:_SHOWN])
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise CommandFailed(f"{text!r} may be {len(found)} jobs; write more of the id:{listed}{more}")


def _is_meant(job: Job, text: str) -> bool:
    return job.id.startswith(text) or job.id.removeprefix("job_").startswith(text.lower()) or job.name == text
