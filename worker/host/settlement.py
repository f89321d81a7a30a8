"""Settles an attempt whose trainer has ended: its artifacts go to the store, then one transition ends or requeues the job."""

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service import jobs, models
from service.errors import JobFailure, NotFound
from service.lifecycle import Outcome
from service.part_errors import is_of_machine
from service.scheduling import Claim
from service.spec import JobSpec
from service.spec.source import is_given
from service.store import StoredFile
from service.tables import Model
from worker.host.access import LeasedAccess, attempt_prefix
from worker.host.executor import Ending
from worker.host.fork_server import SERVER_LOST
from worker.host.memory_kills import MemoryKills
from worker.host.record import LogTail
from worker.protocol import LOG_FILE, RESULT_FOLDER, STUDENT_FOLDER, Failed, Finished, Stopped

_TEACHER = re.compile(r"teacher(-\d+)?")
"""The folders of teachers that a job trained."""
_BY_SOMEBODY = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
"""Signals that no trainer ends itself by."""


class Settlement:
    """The end of the attempt of ``claim``, made before its trainer starts.

    Every method raises LeaseLost if another attempt may hold the job.
    """

    def __init__(self, claim: Claim, folder: Path, access: LeasedAccess, log: LogTail) -> None:
        self._job, self._folder, self._log = claim.job, folder, log
        self._access, self._fence = access, claim.fence
        self.memory_kills = MemoryKills()
        self.took = False
        """Whether this host took the attempt from its job."""

    def settle(self, ending: Ending) -> None:
        """Settles the attempt as its trainer ended."""
        match ending.last:
            case Finished(result=result):
                self._succeed(result)
            case Stopped(reason="time_limit"):
                self.fail_by_time_limit("The student as far as it came is an artifact.")
            case Stopped(reason=reason):
                self.took = reason == "signal"
                files = self._store_result() if reason == "cancel" else []
                left = self._models(files)
                self._settle(lambda s: jobs.settle_stopped(s, self._fence, reason=reason, files=files, models=left))
            case Failed() as failed:
                failure = JobFailure(code=failed.code, message=failed.message, hint=failed.hint, details=failed.details)
                if failed.code == "artifacts_unavailable":
                    self.lose(failure)
                elif failed.retryable:
                    self._crash(failure)
                else:
                    self.fail(failure)
            case _ if ending.killed and ending.asked is not None and ending.asked.reason == "time_limit":
                self.fail_by_time_limit("It did not stop in time to keep its student.")
            case _ if ending.killed and ending.asked is not None:
                reason = ending.asked.reason
                self._settle(lambda session: jobs.settle_stopped(session, self._fence, reason=reason))
            case _ if ending.exit_code == SERVER_LOST:
                self.lose(_lost("the fork server ended, and the trainer with it", ending.exit_code))
            case _ if -ending.exit_code in _BY_SOMEBODY and not self._may_be_out_of_memory(ending.exit_code):
                name = signal.Signals(-ending.exit_code).name
                self.lose(_lost(f"the trainer was killed by {name}, and not by the kernel for its memory", ending.exit_code))
            case _:
                self._crash(_crash(ending.exit_code))

    def fail(self, failure: JobFailure, *, files: Sequence[StoredFile] = (), left: Sequence[Model] = ()) -> None:
        """Fails the job, for what another attempt would repeat; ``files`` are its artifacts, with the log."""
        failure, files = self._with_log(failure), files or self._store_log()
        self._settle(lambda session: jobs.fail(session, self._fence, failure, files=files, models=left))

    def fail_by_time_limit(self, what_is_left: str) -> None:
        """Fails the job for the time that it ran; ``what_is_left`` is a sentence."""
        limit = self._job.spec["resources"]["max_runtime_seconds"]
        failure = JobFailure(
            code="time_limit",
            message=f"the job ran longer than its {limit} s",
            hint=f"Raise resources.max_runtime_seconds and submit again. {what_is_left}",
        )
        files = self._store_result()
        self.fail(failure, files=files, left=self._models(files))

    def lose(self, failure: JobFailure) -> None:
        """Requeues the job at no charge: this host took the attempt from it."""
        self.took = True
        failure, files = self._with_log(failure), self._store_log()
        self._settle(lambda session: jobs.lose(session, self._fence, failure, files=files))

    def settle_error(self, error: Exception) -> None:
        """Settles the attempt without its files, after an error of this host's own part in it."""
        code = "artifacts_unavailable" if isinstance(error, OSError | NotFound) else "trainer_error"
        failure = JobFailure(code=code, message=f"{type(error).__name__}: {error}", hint="The worker's log has the details.")
        self.took = is_of_machine(error, names_no_file_of_jobs=True)
        end = jobs.lose if self.took else jobs.crash
        self._settle(lambda session: end(session, self._fence, failure))

    def give_back(self) -> None:
        """Ends the attempt without its files, for a part that is away: the job is cancelled if that is what it waited with."""
        self._settle(lambda session: jobs.settle_stopped(session, self._fence, reason="drain"))

    def _crash(self, failure: JobFailure) -> None:
        """Requeues the job for another attempt, or fails it after the last."""
        failure, files = self._with_log(failure), self._store_log()
        self._settle(lambda session: jobs.crash(session, self._fence, failure, files=files))

    def _settle(self, transition: Callable[[Session], Outcome]) -> None:
        self._access.write(self._fence, transition)

    def _with_log(self, failure: JobFailure) -> JobFailure:
        if failure.details.get("log_tail") or not (tail := self._log.tail()):
            return failure
        return failure.model_copy(update={"details": {**failure.details, "log_tail": tail}})

    def _may_be_out_of_memory(self, exit_code: int) -> bool:
        """Whether the kernel may have killed the trainer for its memory: it kills by SIGKILL, and counts that."""
        return exit_code == -signal.SIGKILL and self.memory_kills.may_be_new

    def _succeed(self, result: dict[str, Any]) -> None:
        files = self._store_result()
        left = self._models(files)
        if not left:
            raise RuntimeError("a trainer that has finished leaves a student")
        self._settle(lambda session: jobs.succeed(session, self._fence, result=result, files=files, models=left))

    def _models(self, files: Sequence[StoredFile]) -> list[Model]:
        """The student among ``files`` as a model row, then the teacher that was trained; none if there is no student.

        Of several teachers that were trained none is listed: no source would tell them apart.
        """
        folders = dict.fromkeys(file.name.partition("/")[0] for file in files if "/" in file.name)
        teachers = [folder for folder in folders if _TEACHER.fullmatch(folder)]
        if STUDENT_FOLDER not in folders:
            return []
        spec, name = JobSpec.model_validate(self._job.spec), self._job.name or self._job.id
        left = [self._model(files, STUDENT_FOLDER, part="student", source=spec.student.source, name=name)]
        if len(teachers) == 1:
            (trained,) = spec.trained_teachers
            left.append(self._model(files, teachers[0], part="teacher", source=trained.source, name=f"{name}: the teacher"))
        return left

    def _model(self, files: Sequence[StoredFile], folder: str, *, part: str, source: str, name: str) -> Model:
        """The network in a folder of the result, which began with ``source``, as a model row."""
        own = {file.name.removeprefix(f"{folder}/"): file for file in files if file.name.startswith(f"{folder}/")}
        files_of = [Path(file) for file in own]
        model = models.describe(self._folder / RESULT_FOLDER / folder, files_of, owner_id=self._job.owner_id, name=name)
        model.task, model.job_id, model.part = self._job.spec["task"], self._job.id, part
        model.base = source if is_given(source) else None
        model.files = [
            {"name": file, "path": stored.path, "size": stored.size, "sha256": stored.sha256, "media_type": stored.media_type}
            for file, stored in own.items()
        ]
        return model

    def _store_result(self) -> list[StoredFile]:
        folder, store = self._folder / RESULT_FOLDER, self._access.store
        files = self._access.in_store(lambda: store.put_folder(folder, attempt_prefix(self._fence))) if folder.exists() else []
        return [*files, *self._store_log()]

    def _store_log(self) -> list[StoredFile]:
        """Stores the whole log, with that of earlier attempts."""
        text = self._access.in_database(lambda session: jobs.log_text(session, self._fence.job_id))
        if not text:
            return []
        whole = self._folder / "whole-log.txt"
        whole.write_text(text)
        key = f"{attempt_prefix(self._fence)}/{LOG_FILE}"
        return [self._access.in_store(lambda: self._access.store.put(whole, key, name=LOG_FILE))]


def _lost(message: str, exit_code: int) -> JobFailure:
    return JobFailure(
        code="worker_lost",
        message=message,
        hint="Somebody or something on the worker's host ended it.",
        details={"exit_code": exit_code},
    )


def _crash(exit_code: int) -> JobFailure:
    if exit_code == -signal.SIGKILL:
        return JobFailure(
            code="out_of_memory",
            message="the trainer was killed (SIGKILL) while the kernel killed for want of memory",
            hint="Use a smaller batch_size or network, or a host with more memory.",
            details={"exit_code": exit_code},
        )
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return JobFailure(
        code="trainer_crashed",
        message=f"the trainer ended {how}, without a result",
        hint="The log's last lines often say why.",
        details={"exit_code": exit_code},
    )
