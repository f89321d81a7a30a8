"""Commands on the shared queue and its workers."""

from typing import Annotated, Literal

import typer

from service.cli.application import AsJson, JobId
from service.cli.tables import ago, ahead, print_explained, print_fields, print_json, print_rows
from service.cli.terminal import err, out
from service.client import Client, Job, RunningJob, Start, Worker

WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id, worker_…")]


def register(app: typer.Typer) -> None:
    """Adds the commands, in the order of the help page."""
    for command in (queue, explain, priority, workers, drain, undrain):
        app.command(rich_help_panel="Queue")(command)


def queue(
    *,
    pool: Annotated[str | None, typer.Option(help="Only this pool; all by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the waiting jobs, in the order in which they would start, and the running ones."""
    with Client() as client:
        found = client.queue(pool=pool)
    if as_json:
        print_json(found)
        return
    pools = {job.pool for job in found.waiting} | {job.pool for job in found.running}
    if found.running:
        out.print(f"{_jobs(len(found.running))} {'runs' if len(found.running) == 1 else 'run'}", style="bold")
        print_rows([_running(job, many_pools=len(pools) > 1) for job in found.running], wide=["name"])
    if found.waiting:
        words = f"{_jobs(found.num_waiting)} {'waits' if found.num_waiting == 1 else 'wait'} for devices"
        out.print(words, style="bold")
        rows = [
            {
                "": job.position,
                **({"pool": job.pool} if len(pools) > 1 else {}),
                "id": job.id,
                "name": job.name,
                "owner": job.owner,
                "priority": job.priority,
                "needs": job.needs,
                "starts": "" if job.expected_start is None else ahead(job.expected_start.p50),
            }
            for job in found.waiting
        ]
        print_explained(rows, [f"waits for {job.waiting_for}" for job in found.waiting])
    if found.num_waiting > len(found.waiting):
        out.print(f"and {found.num_waiting - len(found.waiting):,} more")
    if not found.running and not found.waiting:
        out.print("nothing waits for devices and nothing runs")


def explain(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Explain a job's state: its place in the queue, what blocks it, and when it should start."""
    with Client() as client:
        found = client.explain(job_id)
    if as_json:
        print_json(found)
        return
    share = found.fair_share
    limit = "" if share is None or share.max_running_jobs is None else f", {share.running} of {share.max_running_jobs} jobs run"
    print_fields(
        {
            "job": found.job_id,
            "status": f"{found.status} ({found.reason})" if found.reason != found.status else found.status,
            "queue": f"number {found.position} in pool {found.pool}" if found.position else None,
            "waits for": found.waiting_for,
            "starts": starts(found.expected_start),
            "needs": found.needs,
            "fair share": None if share is None else f"{share.used:,.0f} GPU-seconds used, weight {share.weight:g}{limit}",
            "workers": f"{found.live_workers} in pool {found.pool}, {found.suitable_workers} could take it",
        }
    )


def priority(
    job_id: JobId,
    to: Annotated[Literal["low", "normal", "high"], typer.Argument(metavar="low|normal|high", help="Only admins can set high.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Change the priority of a job."""
    with Client() as client:
        job = client.patch(job_id, priority=to)
    if as_json:
        print_json(job)
    else:
        out.print(f"{job.id}  {job.status}, priority {job.priority}")


def workers(*, as_json: AsJson = False) -> None:
    """List the workers, their devices and the jobs on them."""
    with Client() as client:
        found = client.workers()
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("no worker runs; start one with: stillhouse worker")
        return
    rows = [
        {
            "id": worker.id,
            "host": worker.host,
            "pool": worker.pool,
            "state": _state(worker),
            "heartbeat": ago(worker.heartbeat_at),
            "device": device.name,
            "memory": f"{device.memory_gib:.0f} GiB" if device.memory_gib else "",
            "jobs": device.job_ids,
        }
        for worker in found
        for device in worker.devices
    ]
    for before, row in zip(rows[-2::-1], rows[:0:-1], strict=True):  # a worker's own fields once, beside its first device
        if before["id"] == row["id"]:
            row |= dict.fromkeys(("id", "host", "pool", "state", "heartbeat"), "")
    print_rows(rows)


def drain(
    worker_id: WorkerId,
    *,
    finish: Annotated[
        bool, typer.Option(help="Let its jobs run to their end; by default they write a checkpoint and go back to the queue.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a worker from taking jobs; for admins."""
    with Client() as client:
        _print_worker(client.drain(worker_id, finish=finish), as_json=as_json)


def undrain(worker_id: WorkerId, *, as_json: AsJson = False) -> None:
    """Let a drained worker take jobs again; for admins."""
    with Client() as client:
        _print_worker(client.undrain(worker_id), as_json=as_json)


def starts(start: Start | None) -> str | None:
    """Formats when a job should start."""
    return None if start is None else f"{ahead(start.p50)}; nine times of ten {ahead(start.p90)} or sooner"


def print_job(job: Job, *, as_json: bool) -> None:
    """Prints a job that was just changed."""
    if as_json:
        print_json(job)
    else:
        out.print(f"{job.id}  {job.status}{asked_text(job)}")


def asked_text(job: Job) -> str:
    """The pending stop request of a running job, to be appended to its status."""
    return f", {job.stop_requested} was asked for" if job.stop_requested and not job.terminal else ""


def _running(job: RunningJob, *, many_pools: bool) -> dict[str, object]:
    return {
        **({"pool": job.pool} if many_pools else {}),
        "id": job.id,
        "name": job.name,
        "owner": job.owner,
        "worker": job.worker,
        "devices": job.devices,
        "started": ago(job.started_at),
        "ends": ahead(job.expected_end_at) if job.expected_end_at is not None else "",
    }


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _state(worker: Worker) -> str:
    if worker.alive is False:
        return "silent"
    return "draining" if worker.draining else "takes jobs"


def _print_worker(worker: Worker, *, as_json: bool) -> None:
    if as_json:
        print_json(worker)
        return
    out.print(f"{worker.id}  {_state(worker)}")
    if worker.draining and worker.job_ids:
        err.print(f"still on it: {', '.join(worker.job_ids)}")
