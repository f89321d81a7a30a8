"""The client: one method for each operation of the API."""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel

from service.client.address import address
from service.client.download import OnBytes, chosen, fetch
from service.client.errors import ApiError, NotFound, PreviewFailed, Unreachable, WaitTimeout
from service.client.event_stream import Message, read_lines, read_messages
from service.client.folder_upload import OnSent, upload_folder
from service.client.queue import Explanation, Queue, Usage, User, Worker
from service.client.resources import Artifact, CheckedSpec, Dataset, Event, Job, Key, Me, MetricSeries, Model, NewKey
from service.client.transport import Transport
from service.connection import find_connection
from service.errors import JobFailure
from service.spec import JobSpec
from service.spec.parse import read_document
from service.spec.preview import USUAL_SAMPLES, Preview
from service.spec.report import Report

Spec = JobSpec | Mapping[str, Any] | Path
ResourceType = TypeVar("ResourceType", bound=BaseModel)

_LONG_POLL_SECONDS = 30
_STREAM_TIMEOUT_SECONDS = 45.0
"""Three of the comment lines that the service sends every 15 s are missing: the connection is considered dead."""
_PAGE_SIZE = 100


class Client:
    """A client of the service. It is thread-safe.

    Address and key come from the arguments, else from ``STILLHOUSE_URL`` and ``STILLHOUSE_API_KEY``, else from the file that
    ``stillhouse up`` writes on this machine.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout_seconds: float = 30.0, max_retries: int = 6
    ) -> None:
        connection = find_connection(url=url, api_key=api_key)
        self.url = connection.url
        self._transport = Transport(connection, timeout_seconds=timeout_seconds, max_retries=max_retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    # ------------------------------------------------------------ jobs

    def submit(self, spec: Spec, *, idempotency_key: str | None = None) -> Job:
        """Submits a job. The same idempotency key again returns the first job; by default each call has a new key."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return Job.model_validate(self._post("/v1/jobs", json=_document(spec), headers=headers))

    def validate(self, spec: Spec) -> dict[str, Any]:
        """Returns the complete spec as the service would store it; nothing is queued. Raises InvalidSpec."""
        return self.check(spec).spec

    def check(self, spec: Spec) -> CheckedSpec:
        """Returns the complete spec with what the service warns of; nothing is queued. Raises InvalidSpec."""
        options: dict[str, Any] = {"json": _document(spec), "params": {"dry_run": "true"}}
        answer = self._transport.request("POST", "/v1/jobs", repeatable=True, **options)
        warnings = json.loads(answer.headers.get("Stillhouse-Warnings", "[]"))
        return CheckedSpec.model_validate({"spec": answer.json(), "warnings": warnings})

    def preview(self, spec: Spec, *, samples: int = USUAL_SAMPLES) -> Preview:
        """Returns some samples of the training split as the spec's networks will read them, which a worker makes.

        Raises:
            InvalidSpec: the spec cannot be submitted.
            PreviewFailed: the data, or a network, cannot be read.
            ServiceUnavailable: no worker lives.
        """
        wait = {"Prefer": f"wait={_LONG_POLL_SECONDS}"}
        options: dict[str, Any] = {"headers": wait, "read_timeout_seconds": _LONG_POLL_SECONDS + self._transport.timeout_seconds}
        made = self._transport.request(
            "POST", "/v1/jobs/preview", repeatable=False, json=_document(spec), params={"samples": samples}, **options
        ).json()
        while made["finished_at"] is None:
            made = self._transport.request("GET", address("previews", made["id"]), repeatable=True, **options).json()
        return _preview(made)

    def preview_of_job(self, job_id: str) -> Preview:
        """Returns what a job's check read for it, or if it is not kept any more what its spec reads, as :meth:`preview`."""
        job = self.job(job_id)
        made = (job.estimate or {}).get("preview_id")
        if made is not None:
            with contextlib.suppress(NotFound):
                return _preview(self._get(address("previews", made)))
        return self.preview(job.spec)

    def job(self, job_id: str) -> Job:
        """Returns one job in its current state."""
        return Job.model_validate(self._get(address("jobs", job_id)))

    def jobs(self, *, status: str | None = None, owner: str | None = None, label: str | None = None) -> Iterator[Job]:
        """Yields jobs, newest first, fetched page by page on demand. ``label``: ``name:value``."""
        return self._pages(Job, "/v1/jobs", {"status": status, "owner": owner, "label": label})

    def watch(self, job_id: str) -> Iterator[Job]:
        """Yields the job now and after each change, until it has ended."""
        return self._snapshots(job_id, deadline=None)

    def wait(self, job_id: str, *, timeout_seconds: float | None = None) -> Job:
        """Waits until the job has ended and returns it. Raises WaitTimeout; the job itself continues."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        job = None
        for job in self._snapshots(job_id, deadline=deadline):
            if job.terminal:
                return job
        raise WaitTimeout(f"{job_id} is {job.status if job else 'unknown'} after {timeout_seconds} s")

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yields the job's events after event ``after``, past ones and then live ones, until it has ended.

        A broken connection is resumed: no event is lost, none is repeated.
        """
        last = after
        for message in self._messages(address("jobs", job_id, "events"), job_id, last_id=str(after)):
            event = Event.model_validate_json(message.data)
            if event.seq > last:
                last = event.seq
                yield event

    def events_until_now(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yields the past events of the job after event ``after``."""
        while True:
            page = self._get(address("jobs", job_id, "events"), {"after": after, "limit": _PAGE_SIZE})
            for event in map(Event.model_validate, page["data"]):
                after = event.seq
                yield event
            if not page.get("has_more"):
                return

    def cancel(self, job_id: str, *, keep: str = "last") -> Job:
        """Cancels the job. ``keep``: which checkpoint of a running job stays as a student, ``best``, ``last`` or ``none``."""
        return Job.model_validate(self._post(address("jobs", job_id, "cancel"), json={"keep": keep}))

    def pause(self, job_id: str) -> Job:
        """Stops the job at a checkpoint, from which it can be resumed."""
        return Job.model_validate(self._post(address("jobs", job_id, "pause")))

    def resume(self, job_id: str) -> Job:
        """Puts a paused job back into the queue."""
        return Job.model_validate(self._post(address("jobs", job_id, "resume")))

    def patch(
        self,
        job_id: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: str | None = None,
        depends_on: Sequence[str] | None = None,
    ) -> Job:
        """Changes the given fields; ``depends_on`` only before the job has started."""
        given = {"name": name, "labels": labels, "priority": priority, "depends_on": depends_on}
        body = {field: value for field, value in given.items() if value is not None}
        return Job.model_validate(self._patch(address("jobs", job_id), body))

    def explain(self, job_id: str) -> Explanation:
        """Explains the state of the job: its place in the queue, and what blocks it."""
        return Explanation.model_validate(self._get(address("jobs", job_id, "explain")))

    def delete(self, job_id: str) -> None:
        """Deletes a finished job and its artifacts."""
        self._delete(address("jobs", job_id))

    def metrics(
        self, job_id: str, *, names: Sequence[str] | None = None, max_points: int | None = None
    ) -> dict[str, list[tuple[int, float]]]:
        """Returns the points (step, value) by metric name, at most ``max_points`` of each metric."""
        params = {"names": ",".join(names) if names else None, "max_points": max_points}
        answer = self._get(address("jobs", job_id, "metrics"), params)
        return {series.name: series.points for series in map(MetricSeries.model_validate, answer["data"])}

    def logs(self, job_id: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Yields the log, or its last ``tail`` lines, in pieces; with ``follow`` also new lines, until the job has ended."""
        path = address("jobs", job_id, "logs")
        if not follow:
            yield self._transport.request("GET", path, params={"tail": tail}, repeatable=True).text
            return
        for message in self._messages(path, job_id, params={"tail": tail}):
            yield message.data + "\n"

    def report(self, job_id: str) -> dict[str, Any]:
        """Returns the report card, the content of ``report.json``."""
        answer: dict[str, Any] = self._get(address("jobs", job_id, "report"))
        return answer

    def report_card(self, job_id: str) -> Report:
        """Returns the report card as a model; fields that a newer service added are dropped."""
        return Report.model_validate(self.report(job_id), extra="ignore")

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Returns the files of the job."""
        return [Artifact.model_validate(item) for item in self._get(address("jobs", job_id, "artifacts"))["data"]]

    def download(
        self,
        job_id: str,
        folder: Path | str,
        *,
        names: Sequence[str] | None = None,
        on_bytes: OnBytes = lambda artifact, num_bytes: None,
    ) -> list[Path]:
        """Downloads artifacts into ``folder``, all or those of ``names`` (``student`` selects the whole folder).

        Each file is checked against its SHA-256 and appears only when it is complete; an interrupted download is resumed.
        """
        artifacts = chosen(self.artifacts(job_id), names)
        return [
            fetch(self._transport, job_id=job_id, artifact=artifact, folder=Path(folder), on_bytes=on_bytes)
            for artifact in artifacts
        ]

    # ------------------------------------------------------------ datasets, models, the catalogue

    def upload_dataset(
        self,
        path: Path | str,
        *,
        name: str,
        task: str | None = None,
        input_column: str | Sequence[str] | None = None,
        target_column: str | Sequence[str] | None = None,
        weight_column: str | None = None,
        skip_broken: bool = False,
    ) -> Dataset:
        """Uploads a dataset file, streamed from disk. The same bytes for the same task and columns are stored once.

        Without ``task`` the file tells it: by the kind of its files, or by the usual names of columns.
        ``target_column`` is a name, or several for a multi-task dataset; ``input_column`` a name, or the two of pairs of texts.
        ``skip_broken`` leaves rows out whose image or sound cannot be read; the answer's warnings tell them.
        """
        columns = {"input_column": input_column, "target_column": target_column, "weight_column": weight_column}
        form = (
            {"name": name}
            | ({"task": task} if task else {})
            | {
                field: column if isinstance(column, str) else ",".join(column)
                for field, column in columns.items()
                if column is not None
            }
        )
        form |= {"skip_broken": "true"} if skip_broken else {}
        answer = self._transport.request("POST", "/v1/datasets", form=form, file=Path(path), repeatable=True, **_upload_options())
        return Dataset.model_validate(answer.json())

    def datasets(self) -> Iterator[Dataset]:
        """Yields all datasets."""
        return self._pages(Dataset, "/v1/datasets", {})

    def dataset(self, dataset_id: str) -> Dataset:
        """Returns one dataset."""
        return Dataset.model_validate(self._get(address("datasets", dataset_id)))

    def delete_dataset(self, dataset_id: str) -> None:
        """Deletes a dataset that no live job uses."""
        self._delete(address("datasets", dataset_id))

    def upload_model(
        self,
        path: Path | str,
        *,
        name: str,
        task: str | None = None,
        on_sent: OnSent = lambda file, num_bytes, size: None,
    ) -> Model:
        """Uploads a network: a ``from_pretrained`` folder with safetensors, or a zip or tar of one. Its config sets the task.

        Of a folder, files that the service has are not sent, and what breaks off goes on where it was, also in another call.
        """
        if Path(path).is_dir():
            return Model.model_validate(upload_folder(self._transport, Path(path), name=name, task=task, on_sent=on_sent))
        form = {"name": name} | ({"task": task} if task else {})
        answer = self._transport.request("POST", "/v1/models", form=form, file=Path(path), repeatable=True, **_upload_options())
        return Model.model_validate(answer.json())

    def models(self) -> Iterator[Model]:
        """Yields all stored networks, those of finished jobs included."""
        return self._pages(Model, "/v1/models", {})

    def model(self, model_id: str) -> Model:
        """Returns one stored network."""
        return Model.model_validate(self._get(address("models", model_id)))

    def edit_model(self, model_id: str, *, name: str | None = None, handle: str | EllipsisType | None = ...) -> Model:
        """Renames a model, or sets the handle that specs name it by, ``model:HANDLE``; None takes the handle away."""
        body: dict[str, Any] = {} if handle is ... else {"handle": handle}
        if name is not None:
            body["name"] = name
        return Model.model_validate(self._patch(address("models", model_id), body))

    def delete_model(self, model_id: str) -> None:
        """Deletes an uploaded model that no live job uses."""
        self._delete(address("models", model_id))

    def methods(self) -> list[dict[str, Any]]:
        """The distillation methods that a spec may name."""
        return self._catalogue("/v1/methods")

    def architectures(self) -> list[dict[str, Any]]:
        """The networks that a spec may name."""
        return self._catalogue("/v1/architectures")

    def augmentations(self) -> list[dict[str, Any]]:
        """The augmentations that a spec may name."""
        return self._catalogue("/v1/augmentations")

    def builtin_datasets(self) -> list[dict[str, Any]]:
        """The datasets that need no upload."""
        return self._catalogue("/v1/builtin-datasets")

    # ------------------------------------------------------------ the team

    def queue(self, *, pool: str | None = None) -> Queue:
        """Returns the waiting jobs in the order in which they would start, and the running ones, of one pool or of all."""
        return Queue.model_validate(self._get("/v1/queue", {"pool": pool}))

    def workers(self) -> list[Worker]:
        """Returns the worker processes."""
        return [Worker.model_validate(item) for item in self._get("/v1/workers")["data"]]

    def drain(self, worker_id: str, *, finish: bool = False) -> Worker:
        """Stops a worker from taking jobs. Its jobs go back to the queue, or with ``finish`` run to their end."""
        body = {"jobs": "finish" if finish else "requeue"}
        return Worker.model_validate(self._post(address("workers", worker_id, "drain"), json=body))

    def undrain(self, worker_id: str) -> Worker:
        """Lets a drained worker take jobs again."""
        return Worker.model_validate(self._post(address("workers", worker_id, "undrain")))

    def usage(self, *, since: datetime | None = None) -> list[Usage]:
        """Returns the usage of every user, the heaviest first. ``since`` needs a time zone; whole hours are counted."""
        params = {"since": None if since is None else since.isoformat()}
        return [Usage.model_validate(item) for item in self._get("/v1/usage", params)["data"]]

    def users(self) -> list[User]:
        """Returns all users, with their limits."""
        return [User.model_validate(item) for item in self._get("/v1/users")["data"]]

    def create_user(self, name: str) -> User:
        """Creates a user."""
        return User.model_validate(self._transport.request("POST", "/v1/users", json={"name": name}, repeatable=False).json())

    def edit_user(
        self,
        user: str,
        *,
        share_weight: float | None = None,
        max_running_jobs: int | EllipsisType | None = ...,
        max_queued_jobs: int | EllipsisType | None = ...,
    ) -> User:
        """Changes the given fields of a user, named by name or id. None removes a limit."""
        limits = {"max_running_jobs": max_running_jobs, "max_queued_jobs": max_queued_jobs}
        body: dict[str, Any] = {field: limit for field, limit in limits.items() if limit is not ...}
        if share_weight is not None:
            body["share_weight"] = share_weight
        return User.model_validate(self._patch(address("users", user), body))

    def keys(self) -> list[Key]:
        """Returns all API keys."""
        return [Key.model_validate(item) for item in self._get("/v1/keys")["data"]]

    def create_key(self, *, user: str, role: str, name: str = "") -> NewKey:
        """Creates a key, which is shown only in this response."""
        body = {"user": user, "role": role, "name": name}
        return NewKey.model_validate(self._transport.request("POST", "/v1/keys", json=body, repeatable=False).json())

    def revoke_key(self, key_id: str) -> None:
        """Revokes a key."""
        self._delete(address("keys", key_id))

    def me(self) -> Me:
        """Returns the user and the role of this key."""
        return Me.model_validate(self._get("/v1/me"))

    def set_hub_token(self, token: str) -> None:
        """Keeps a token, encrypted, by which your jobs fetch networks of the Hub that are gated or private."""
        self._transport.request("PUT", "/v1/me/hub-token", json={"token": token}, repeatable=True)

    def remove_hub_token(self) -> None:
        """Forgets that token."""
        self._delete("/v1/me/hub-token")

    # ------------------------------------------------------------ requests

    def _get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._transport.request("GET", path, params=params, repeatable=True).json()

    def _post(
        self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Sends a POST that may be repeated."""
        return self._transport.request("POST", path, json=json, params=params, headers=headers, repeatable=True).json()

    def _patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._transport.request("PATCH", path, json=body, repeatable=True).json()

    def _delete(self, path: str) -> None:
        self._transport.request("DELETE", path, repeatable=True)

    def _catalogue(self, path: str) -> list[dict[str, Any]]:
        return list(self._get(path)["data"])

    def _pages(self, resource: type[ResourceType], path: str, params: Mapping[str, Any]) -> Iterator[ResourceType]:
        after = None
        while True:
            page = self._get(path, {**params, "limit": _PAGE_SIZE, "after": after})
            yield from map(resource.model_validate, page["data"])
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    def _snapshots(self, job_id: str, *, deadline: float | None) -> Iterator[Job]:
        """Yields the job after each change, by long polls with the ETag of the last response."""
        etag = None
        while True:
            wait_seconds = (
                _LONG_POLL_SECONDS if deadline is None else max(0, min(_LONG_POLL_SECONDS, round(deadline - time.monotonic())))
            )
            headers = {"If-None-Match": etag, "Prefer": f"wait={wait_seconds}"} if etag else None
            started = time.monotonic()
            answer = self._transport.request(
                "GET",
                address("jobs", job_id),
                headers=headers,
                repeatable=True,
                read_timeout_seconds=wait_seconds + self._transport.timeout_seconds,
            )
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                job = Job.model_validate(answer.json())
                yield job
                if job.terminal:
                    return
                etag = answer.headers.get("etag")
            if deadline is not None and time.monotonic() >= deadline:
                return
            if "preference-applied" not in answer.headers and time.monotonic() - started < 1.0:
                time.sleep(0.2 if etag is None or answer.status_code != httpx.codes.NOT_MODIFIED else 1.0)

    def _messages(
        self, path: str, job_id: str, *, params: Mapping[str, Any] | None = None, last_id: str = ""
    ) -> Iterator[Message]:
        """Yields the messages of a live stream, resumed by ``Last-Event-ID``, until the stream of an ended job is complete."""
        for retry in self._transport.retries():
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
            had_ended = self.job(job_id).terminal
            try:
                with self._transport.stream(
                    path, params=params, headers=headers, read_timeout_seconds=_STREAM_TIMEOUT_SECONDS
                ) as response:
                    for message in read_messages(read_lines(response.iter_text())):
                        last_id = message.id or last_id
                        retry.reset()
                        yield message
            except httpx.TransportError as error:
                retry.after_break(self._transport.as_unreachable(error), may_wait=self._transport.has_answered)
            except ApiError as problem:
                retry.after_problem(problem)
            else:
                # A service that shuts down also ends its streams: only one that began after the job's end is surely complete.
                if had_ended:
                    return
                retry.after_break(Unreachable(f"{self.url} keeps ending the stream of {job_id}"), may_wait=True)


def _document(spec: Spec) -> Any:
    """The document to send. A file is sent unchecked: the service, which may be newer, validates it."""
    if isinstance(spec, JobSpec):
        return spec.model_dump(mode="json")
    return read_document(spec) if isinstance(spec, Path) else dict(spec)


def _upload_options() -> dict[str, Any]:
    """Options of an upload, which the service answers only after it has read the whole file."""
    return {"read_timeout_seconds": 600.0}


def _preview(made: dict[str, Any]) -> Preview:
    """Reads a preview that has ended. Raises PreviewFailed."""
    if made["error"] is not None:
        raise PreviewFailed(JobFailure.model_validate(made["error"]))
    return Preview.model_validate({"samples": made["samples"], "warnings": made["warnings"]}, extra="ignore")
