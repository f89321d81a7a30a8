"""Trains a spec without the service, ``stillhouse train``, or shows what its networks read, ``stillhouse preview``.

A training's folder holds all state: a run that was stopped, or killed, leaves its checkpoint there, and the same spec with the
same folder resumes from it. Invariants: a folder with another spec's unfinished run is left as it is; a spec that cannot be
trained here is refused before torch is imported, which takes seconds.
"""

import hashlib
import json
import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from service.errors import FieldError, InvalidFile, InvalidSpec
from service.formats import inspect_source
from service.spec import JobSpec, load_spec
from service.spec.data import DatasetInfo
from service.spec.fit import check_fit, spec_faults
from service.spec.preview import Preview
from service.spec.source import is_given, is_remote, split_source
from worker.job.logs import log_to
from worker.protocol import (
    CHECKPOINT_FILE,
    LOG_FILE,
    RESULT_FOLDER,
    Assignment,
    Event,
    Failed,
    Finished,
    HostDevices,
    Previewed,
    Stopped,
    StopRequest,
)
from worker.sources.cache import NetworkCache
from worker.sources.conversion import plain_folder
from worker.sources.data_files import data_file, hold_file
from worker.sources.errors import HubAway, SourceRefused
from worker.sources.remote_data import check_remote_data, convert_remote, remote_rows, resolve_data
from worker.sources.revisions import folder_digest, network_sources
from worker.spec_file import SPEC_FILE, training_parts, write_spec

if TYPE_CHECKING:
    from worker.sources.hub import Snapshot

_REVISIONS_FILE = "revisions.json"
"""What the networks of an unfinished run, and its data of the Hub and of buckets, were resolved to."""
_NETWORKS_FOLDER = "networks"
_CONVERTED_FOLDER, _DATA_FOLDER = "converted", "data"
"""What networks of llama.cpp, and files of data, were converted to, where no cache is given for them."""
_MOST_CONVERTED_BYTES = 2**50


class TrainingFailed(Exception):
    """The training ended without a student; ``failed`` has the reason."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class FolderInUse(Exception):
    """The folder holds the checkpoint of another spec."""


def train(
    spec: JobSpec,
    out: Path,
    on_event: Callable[[Event], None],
    *,
    cache: Path | None = None,
    networks: NetworkCache | None = None,
    data: NetworkCache | None = None,
) -> Finished | Stopped:
    """Trains and leaves the result's files in ``out``, beside ``log.txt``. ``on_event`` gets every event.

    Each device is used from a process of its own.

    ``cache`` is a folder for the teachers' outputs, ``networks`` for networks of llama.cpp that were converted, ``data`` for
    files that were; other trainings may reuse what is there.

    Ctrl-C writes a checkpoint and stops (:class:`Stopped`); a second one aborts.

    Raises:
        InvalidSpec: the spec names something that only the service has, or a GPU where there is none.
        FolderInUse: ``out`` holds another spec's unfinished run.
        TrainingFailed: the job failed.
        ModuleNotFoundError: the libraries of a trainer are not installed.
    """
    inputs, devices = _local_inputs(spec), _choose_devices(spec)
    _check_spec(spec, inputs)
    _claim_folder(out, spec)
    _require_libraries()
    terminal = _Terminal(on_event)
    with ExitStack() as held:
        assignment = _assignment(spec, out, inputs, networks=networks, data=data, held=held)
        assignment = replace(assignment, placement=(HostDevices(devices=devices),), cache=cache)
        _prepare()
        with log_to(logging.FileHandler(out / LOG_FILE, encoding="utf-8")), _stop_on_interrupt(terminal):
            _run(assignment, terminal)
    match terminal.last:
        case Finished() as finished:
            _move_result(out)
            return finished
        case Stopped() as stopped:
            return stopped
        case Failed() as failed:
            raise TrainingFailed(failed)
        case other:
            raise RuntimeError(f"the trainer's last event was {other}")


def preview(
    spec: JobSpec,
    num_samples: int,
    on_event: Callable[[Event], None],
    *,
    networks: NetworkCache | None = None,
    data: NetworkCache | None = None,
) -> Preview:
    """Reads some samples of the training split as each network of the job would, on the CPU, and leaves nothing behind.

    Raises:
        InvalidSpec: the spec names something that only the service has.
        TrainingFailed: the data, or a network, cannot be read.
        ModuleNotFoundError: the libraries of a trainer are not installed.
    """
    inputs = _local_inputs(spec)
    _check_spec(spec, inputs)
    _require_libraries()
    terminal = _Terminal(on_event)
    with TemporaryDirectory(prefix="stillhouse-preview-") as name, ExitStack() as held:
        assignment = _assignment(spec, Path(name), inputs, networks=networks, data=data, held=held)
        _prepare()
        _run(replace(assignment, preview=num_samples), terminal)
    match terminal.last:
        case Previewed(preview=found):
            return Preview.model_validate(found)
        case Failed() as failed:
            raise TrainingFailed(failed)
        case other:
            raise RuntimeError(f"the last event of a preview was {other}")


def _assignment(
    spec: JobSpec,
    folder: Path,
    files: Mapping[str, Path],
    *,
    networks: NetworkCache | None,
    data: NetworkCache | None,
    held: ExitStack,
) -> Assignment:
    """What a trainer is given of a spec, on one CPU; ``held`` keeps its inputs until it is closed. Raises TrainingFailed."""
    noted = folder / _REVISIONS_FILE
    commits = json.loads(noted.read_text()) if noted.exists() and (folder / CHECKPOINT_FILE).exists() else {}
    data = data or NetworkCache(folder / _DATA_FOLDER, max_bytes=_MOST_CONVERTED_BYTES)
    shards, resolved = _convert_data(spec, files, data, held, commits=commits)
    networks = networks or NetworkCache(folder / _CONVERTED_FOLDER, max_bytes=_MOST_CONVERTED_BYTES)
    found = _fetch_networks(spec, folder, networks, held, commits=commits)
    revisions = resolved | {source: revision for source, (_, revision) in found.items()}
    if revisions:
        noted.write_text(json.dumps(revisions))
    return Assignment(
        job_id="alone",
        spec=spec.model_dump(mode="json"),
        folder=folder,
        inputs=shards | {source: path for source, (path, _) in found.items()},
        revisions=revisions,
    )


class _Terminal:
    """The reporter of a training without a supervisor."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._request: StopRequest | None = None
        self.last: Event | None = None

    def emit(self, event: Event) -> None:
        self.last = event
        self._on_event(event)

    def stop_request(self) -> StopRequest | None:
        return self._request

    def request_stop(self) -> None:
        self._request = StopRequest(reason="pause")


def _check_spec(spec: JobSpec, inputs: Mapping[str, Path]) -> None:
    """Runs the checks that the service runs when a spec is posted. Raises InvalidSpec."""
    if is_remote(spec.dataset.source):
        if faults := spec_faults(spec):
            raise InvalidSpec(faults)
        return
    info = _inspect(spec, spec.dataset.source, inputs, pointer="/dataset/source")
    transfer = None
    if spec.dataset.transfer is not None and not is_remote(spec.dataset.transfer):
        transfer = _inspect(spec, spec.dataset.transfer, inputs, pointer="/dataset/transfer", transfer=True)
    if faults := check_fit(spec, info, teachers={}, transfer=transfer):
        raise InvalidSpec(faults)


def _inspect(spec: JobSpec, source: str, inputs: Mapping[str, Path], *, pointer: str, transfer: bool = False) -> DatasetInfo:
    try:
        return inspect_source(spec, source, find_file=lambda name: inputs[source], transfer=transfer)
    except InvalidFile as error:
        raise InvalidSpec([FieldError(pointer=pointer, message=error.detail)]) from error


def _local_inputs(spec: JobSpec) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    faults = []
    for pointer, text in (("/dataset/source", spec.dataset.source), ("/dataset/transfer", spec.dataset.transfer)):
        if text is None:
            continue
        source, path = split_source(text), Path(split_source(text).name).expanduser()
        if source.kind == "dataset":
            message = f"{text} is in the service; without it, use builtin:…, file:PATH, hub:REPO or s3://BUCKET/PATH"
            faults.append(FieldError(pointer=pointer, message=message))
        elif source.kind == "file" and not path.is_file():
            faults.append(FieldError(pointer=pointer, message=f"there is no file {path}"))
        elif source.kind == "file":
            inputs[text] = path
    for pointer, text in network_sources(spec).items():
        source, path = split_source(text), Path(split_source(text).name).expanduser()
        if source.kind in ("job", "model"):
            message = f"{text} is in the service; without it, use hub:REPO, file:FOLDER or a network that the job makes"
            faults.append(FieldError(pointer=pointer, message=message))
        elif source.kind == "file" and not path.is_dir():
            faults.append(FieldError(pointer=pointer, message=f"there is no folder {path}"))
    if faults:
        raise InvalidSpec(faults)
    return inputs


def _convert_data(
    spec: JobSpec, files: Mapping[str, Path], cache: NetworkCache, held: ExitStack, *, commits: Mapping[str, str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """The shards of each file and of data elsewhere, which ``held`` keeps in the cache until it is closed, and their revisions.

    ``commits`` are those that the run began with.

    Raises:
        TrainingFailed: data cannot be had, or not be read, or the spec does not fit them.
    """
    found, resolved = {}, {}
    for pointer, source in (("/dataset/source", spec.dataset.source), ("/dataset/transfer", spec.dataset.transfer)):
        is_transfer = source != spec.dataset.source
        try:
            if source is not None and source in files:
                file = data_file(spec.dataset, spec.task, files[source].name, is_transfer=is_transfer)
                found[source] = held.enter_context(hold_file(cache, source, files[source], file))
            elif source is not None and is_remote(source):
                rows = remote_rows(spec, source, is_transfer=is_transfer)
                resolved[source] = commits.get(source) or resolve_data(source, token=lambda: None)
                fetch = partial(convert_remote, rows, revision=resolved[source], token=lambda: None)
                found[source] = held.enter_context(cache.hold(rows.key(resolved[source]), fetch))
        except (SourceRefused, HubAway) as error:
            raise _failed(error, pointer) from None
    try:
        check_remote_data(spec, found)
    except SourceRefused as error:
        raise _failed(error, error.pointer or "") from None
    return found, resolved


def _failed(error: SourceRefused | HubAway, pointer: str) -> TrainingFailed:
    code = error.code if isinstance(error, SourceRefused) else "input_unavailable"
    is_away = isinstance(error, HubAway)
    return TrainingFailed(Failed(code, error.message, error.hint, {"pointer": pointer}, retryable=is_away))


def _fetch_networks(
    spec: JobSpec, out: Path, cache: NetworkCache, held: ExitStack, *, commits: Mapping[str, str]
) -> dict[str, tuple[Path, str]]:
    """The folder and the revision of each network that exists; of the Hub those of ``commits``, which the run began with.

    ``held`` keeps the folders in the cache until it is closed.

    Raises:
        TrainingFailed: one cannot be fetched.
    """
    found: dict[str, tuple[Path, str]] = {}
    for pointer, source in network_sources(spec).items():
        if not is_given(source) or source in found:
            continue
        try:
            folder, revision = _fetch_network(source, out, commit=commits.get(source))
            found[source] = held.enter_context(plain_folder(folder, source=source, cache=cache)), revision
        except (SourceRefused, HubAway) as error:
            raise _failed(error, pointer) from None
    return found


def _fetch_network(source: str, out: Path, *, commit: str | None) -> tuple[Path, str]:
    if split_source(source).kind == "file":
        folder = Path(split_source(source).name).expanduser()
        return folder, folder_digest(folder)
    snapshot = _fetch_snapshot(source, out / _NETWORKS_FOLDER / hashlib.sha256(source.encode()).hexdigest()[:16], commit=commit)
    return snapshot.folder, snapshot.commit


def _fetch_snapshot(source: str, links: Path, *, commit: str | None) -> "Snapshot":
    from worker.sources.hub import fetch_snapshot  # its library takes half a second to import

    shutil.rmtree(links, ignore_errors=True)
    return fetch_snapshot(source, links, commit=commit)


def _choose_devices(spec: JobSpec) -> tuple[str, ...]:
    num_gpus = spec.resources.gpus
    if num_gpus == 0:
        return ("cpu",) * spec.resources.cpu_slots
    import torch

    available = torch.cuda.device_count()
    if available == 0:
        raise InvalidSpec([FieldError(pointer="/resources/gpus", message="there is no GPU here; set 0 to train on the CPU")])
    if available < num_gpus:
        raise InvalidSpec(
            [FieldError(pointer="/resources/gpus", message=f"there are {available} GPUs here; set {available} or less")]
        )
    return tuple(f"cuda:{number}" for number in range(num_gpus))


def _require_libraries() -> None:
    """Raises ModuleNotFoundError if the libraries of a trainer are not installed."""
    if find_spec("torch") is None:
        raise ModuleNotFoundError("there is no torch", name="torch")


def _prepare() -> None:
    """Starts what imports all that a trainer needs, which takes seconds."""
    from worker.host.fork_server import warm_up

    warm_up()


def _run(assignment: Assignment, terminal: _Terminal) -> None:
    """Runs the attempt in processes of its own."""
    from worker.host.executor import LocalExecutor, follow

    ending = follow(LocalExecutor().start(assignment), on_event=terminal.emit, wanted_stop=terminal.stop_request)
    if ending.last is None:
        message = f"a training process ended with exit code {ending.exit_code}, without a result"
        terminal.emit(Failed("trainer_crashed", message, hint=f"{LOG_FILE} often says why.", retryable=True))


def _claim_folder(out: Path, spec: JobSpec) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT_FILE).exists() and (out / SPEC_FILE).exists():
        earlier = load_spec(out / SPEC_FILE)
        if training_parts(earlier) != training_parts(spec):
            raise FolderInUse(
                f"{out} holds the unfinished run of another spec ({SPEC_FILE}); choose another folder, or delete it"
            )
    write_spec(out, spec)


def _move_result(out: Path) -> None:
    """Moves the result's files into ``out``, then removes the checkpoint: killed in between, the run can still resume."""
    for path in (out / RESULT_FOLDER).iterdir():
        target = out / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    (out / RESULT_FOLDER).rmdir()
    (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    (out / _REVISIONS_FILE).unlink(missing_ok=True)
    for folder in (_NETWORKS_FOLDER, _CONVERTED_FOLDER, _DATA_FOLDER):
        shutil.rmtree(out / folder, ignore_errors=True)


@contextmanager
def _stop_on_interrupt(terminal: _Terminal) -> Iterator[None]:
    # Python allows signal handlers to be set in the main thread alone.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if terminal.stop_request() is not None:
            raise KeyboardInterrupt
        terminal.request_stop()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
