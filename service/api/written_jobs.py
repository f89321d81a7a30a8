"""Jobs as they are sent: each version is written once, and kept while there is room."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from service.api.responses.jobs import JobHead, queue_place
from service.lifecycle import Status
from service.scheduling.explain import Place

_KEPT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class WrittenJob:
    """A version of a job, but for its place in the queue, which changes without it."""

    version: int
    before_place: bytes
    after_place: bytes
    queued: Any
    """The row of a queued job, on which its place depends; else None."""

    def with_place(self, place: Place | None) -> bytes:
        """A ``JobView`` in JSON."""
        view = queue_place(place)
        return self.before_place + (b"null" if view is None else view.model_dump_json().encode()) + self.after_place


class WrittenJobs:
    """Those that were asked for last. Who finds one here has to know by its version that it is the newest."""

    def __init__(self) -> None:
        self._kept: LRUCache[str, WrittenJob] = LRUCache(_KEPT_BYTES, getsizeof=_size)

    def of(self, ids: Iterable[str]) -> dict[str, WrittenJob]:
        """The kept ones of these jobs, by id."""
        return {job_id: self._kept[job_id] for job_id in ids if job_id in self._kept}

    def forget(self) -> None:
        """Forgets all: a version may be given again, by a server that took over without this one's last writes."""
        self._kept.clear()

    def write(self, row: Any) -> WrittenJob:
        """Writes a row of :mod:`service.read_statements`, unless that version is kept."""
        kept = self._kept.get(row.id)
        if kept is not None and kept.version == row.version:
            return kept
        head = JobHead.of(row, owner=row.owner).model_dump_json()
        after_place = f',"spec":{row.spec},"result":{row.result or "null"}}}'
        queued = row._replace(spec=None, result=None) if row.status == Status.QUEUED else None
        written = WrittenJob(row.version, f'{head[:-1]},"queue":'.encode(), after_place.encode(), queued)
        is_newest = kept is None or kept.version < written.version
        if is_newest and _size(written) <= _KEPT_BYTES:
            self._kept[row.id] = written
        return written


def _size(written: WrittenJob) -> int:
    return len(written.before_place) + len(written.after_place)
