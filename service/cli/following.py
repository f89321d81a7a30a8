"""Follows a job over HTTP until it ends, and displays its progress."""

from service.cli.progress import ProgressView
from service.client import Client, Event, Job, JobProgress
from service.errors import FAILURE_CODES

_SHOWN_ELSEWHERE = {
    "queued",
    *(f"job.{what}" for what in ["checking", "check_started", "waiting", "running", "succeeded", "failed", "cancelled"]),
}
"""Transitions that the status line, the bars or the final output show anyway, and the message of the first queueing."""


def follow(client: Client, job_id: str, view: ProgressView) -> Job:
    """Displays the job until it has ended, and returns it in its final state."""
    last_seq = 0
    for job in client.watch(job_id):
        for event in client.events_until_now(job_id, after=last_seq):
            last_seq = event.seq
            _show(view, event)
        _show_snapshot(view, job)
        if job.terminal:
            if job.status == "succeeded":
                view.finish()
            return job
    raise AssertionError("watch ends with a terminal job")


def failure_text(job: Job) -> str:
    """The reason why a job did not succeed, in a few lines."""
    if job.error is None:
        return f"{job.id} was {job.status}" + (f": {job.status_reason}" if job.status_reason else "")
    place = job.error.details.get("pointer")
    lines = [f"{job.id} {job.status}: {job.error.code}: " + (f"{place}: " if place else "") + job.error.message]
    if job.error.hint:
        lines.append(f"  {job.error.hint}")
    elif job.error.code in FAILURE_CODES:
        lines.append(f"  {FAILURE_CODES[job.error.code]}")
    return "\n".join(lines)


def _show(view: ProgressView, event: Event) -> None:
    data = event.data or {}
    if event.type == "progress":
        progress = JobProgress.model_validate(data)
        if progress.total_steps:
            _advance(view, progress)
        else:
            view.begin(progress.phase, event.message or "")
    elif event.type == "metrics":
        view.measure(data.get("points", {}))
    elif event.type.startswith("job.") and event.type not in _SHOWN_ELSEWHERE and event.message not in _SHOWN_ELSEWHERE:
        view.say(event.message or event.type)


def _advance(view: ProgressView, progress: JobProgress) -> None:
    view.advance(
        progress.phase,
        step=progress.step or 0,
        total_steps=progress.total_steps or 0,
        samples_per_second=progress.samples_per_second,
        eta_seconds=progress.eta_seconds,
    )


def _show_snapshot(view: ProgressView, job: Job) -> None:
    if job.status == "running" and job.progress is not None:
        if job.progress.total_steps:
            _advance(view, job.progress)
    elif not job.terminal:
        place = f", number {job.queue.position} in the queue" if job.queue is not None and job.queue.position else ""
        reason = (job.queue.waiting_for if job.queue is not None else None) or job.status_reason
        view.status(f"{job.status}{place}" + (f": {reason}" if reason and reason != job.status else ""))
