"""Trains a spec without the service: ``stillhouse train SPEC --out DIR``.

The folder holds all state: a run that was stopped, or killed, leaves its checkpoint there, and the same spec with the same
folder resumes from it. Invariant: a folder with another spec's unfinished run is left as it is.
"""

import logging
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from service.errors import FieldError, InvalidFile, InvalidSpec
from service.formats import inspect_dataset
from service.spec import JobSpec, load_spec
from service.spec.builtin import BUILTIN_DATASETS
from service.spec.data import DatasetInfo, named_targets
from service.spec.fit import check_fit
from service.spec.source import split_source
from worker.export.folder import write_spec
from worker.job.attempt import run
from worker.job.logs import log_to
from worker.job.resume import training_parts
from worker.protocol import (
    CHECKPOINT_FILE,
    LOG_FILE,
    RESULT_FOLDER,
    Assignment,
    Event,
    Failed,
    Finished,
    HostDevices,
    Stopped,
    StopRequest,
)

SPEC_FILE = "spec.json"


class TrainingFailed(Exception):
    """The training ended without a student; ``failed`` has the reason."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class FolderInUse(Exception):
    """The folder holds the checkpoint of another spec."""


def train(spec: JobSpec, out: Path, on_event: Callable[[Event], None], *, cache: Path | None = None) -> Finished | Stopped:
    """Trains and leaves the result's files in ``out``, beside ``log.txt``. ``on_event`` gets every event.

    One device is used from this process, several devices from one process each.

    ``cache`` is a folder for the teachers' outputs, which other trainings may reuse.

    Ctrl-C writes a checkpoint and stops (:class:`Stopped`); a second one aborts.

    Raises:
        InvalidSpec: the spec names something that only the service has, or a GPU where there is none.
        FolderInUse: ``out`` holds another spec's unfinished run.
        TrainingFailed: the job failed.
    """
    assignment = Assignment(
        job_id="alone",
        spec=spec.model_dump(mode="json"),
        folder=out,
        inputs=_local_inputs(spec),
        placement=(HostDevices(devices=_choose_devices(spec)),),
        cache=cache,
    )
    _check_spec(spec, assignment.inputs)
    _claim_folder(out, spec)
    terminal = _Terminal(on_event)
    with log_to(logging.FileHandler(out / LOG_FILE, encoding="utf-8")), _stop_on_interrupt(terminal):
        if len(assignment.devices) == 1:
            run(assignment, terminal)
        else:
            _run_ranks(assignment, terminal)
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
    info = _inspect(spec.dataset.source, spec, named_targets(spec.dataset, spec.task), inputs, pointer="/dataset/source")
    transfer = None
    if spec.dataset.transfer is not None:
        transfer = _inspect(spec.dataset.transfer, spec, [], inputs, pointer="/dataset/transfer")
    if faults := check_fit(spec, info, teachers={}, transfer=transfer):
        raise InvalidSpec(faults)


def _inspect(text: str, spec: JobSpec, targets: list[str] | None, inputs: Mapping[str, Path], *, pointer: str) -> DatasetInfo:
    source = split_source(text)
    try:
        if source.kind == "builtin":
            if source.name not in BUILTIN_DATASETS:
                raise InvalidFile(f"{source.name!r} is not built in; use one of {', '.join(sorted(BUILTIN_DATASETS))}")
            return BUILTIN_DATASETS[source.name].info
        path = inputs[text]
        return inspect_dataset(
            path,
            filename=path.name,
            task=spec.task,
            input_column=spec.dataset.input,
            target_columns=targets,
            numbers=spec.dataset.numbers,
        )
    except InvalidFile as error:
        raise InvalidSpec([FieldError(pointer=pointer, message=error.detail)]) from error


def _local_inputs(spec: JobSpec) -> dict[str, Path]:
    inputs: dict[str, Path] = {}
    faults = []
    for pointer, text in (("/dataset/source", spec.dataset.source), ("/dataset/transfer", spec.dataset.transfer)):
        if text is None:
            continue
        source, path = split_source(text), Path(split_source(text).name).expanduser()
        if source.kind not in ("builtin", "file"):
            message = f"{text} is in the service; without it, use builtin:… or file:PATH"
            faults.append(FieldError(pointer=pointer, message=message))
        elif source.kind == "file" and not path.is_file():
            faults.append(FieldError(pointer=pointer, message=f"there is no file {path}"))
        elif source.kind == "file":
            inputs[text] = path
    for place, teacher in spec.teachers.items():
        if split_source(teacher.source).kind not in ("train", "hub"):
            message = f"{teacher.source} is in the service; without it, use train or hub:REPO"
            faults.append(FieldError(pointer=f"/{place}/source", message=message))
    if faults:
        raise InvalidSpec(faults)
    return inputs


def _choose_devices(spec: JobSpec) -> tuple[str, ...]:
    num_gpus = spec.resources.gpus
    if num_gpus == 0:
        return ("cpu",) * spec.resources.cpu_slots
    available = torch.cuda.device_count()
    if available == 0:
        raise InvalidSpec([FieldError(pointer="/resources/gpus", message="there is no GPU here; set 0 to train on the CPU")])
    if available < num_gpus:
        raise InvalidSpec(
            [FieldError(pointer="/resources/gpus", message=f"there are {available} GPUs here; set {available} or less")]
        )
    return tuple(f"cuda:{number}" for number in range(num_gpus))


def _run_ranks(assignment: Assignment, terminal: _Terminal) -> None:
    """Runs each rank in a process of its own."""
    from worker.host.executor import LocalExecutor, follow
    from worker.host.trainer_process import warm_up

    warm_up()
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
