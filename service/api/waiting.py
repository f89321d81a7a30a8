"""Long polls and event streams. One reader a process reads for all of them, each change of a job once, however many wait for it.

Nothing is read while nothing happens: notifications say what to read. Where some may have been lost, the versions of all watched
jobs are read, and the keys in use, in one statement each: after a gap, every ``_RECHECK_SECONDS`` while Redis is not heard, and
every ``_SAFETY_SECONDS`` in any case, for the notification of a process that ended between its commit and its message.
A waiting request holds no thread and no database connection.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.middleware import is_head
from service.api.news import News, View, Wanted, read_news
from service.api.responses.jobs import Answer
from service.api.streams import AT_ONCE, Feed, Kind, Messages, Stream, write_to_all
from service.database import Database
from service.errors import NotFound, StillhouseError, Unauthenticated, Unavailable
from service.notifications import Listener
from service.part_errors import Meaning, meaning_of

_RECHECK_SECONDS = 1.0
_SAFETY_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_MAX_READERS = 2
"""Threads, and connections of the database, that waiting requests use together."""
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Poll:
    """A request that waits for a version."""

    version: int
    """Which it has read: what another read began to find before that may be older, and is no answer."""
    is_new: Callable[[int], bool]
    found: "asyncio.Future[Answer | None]"

    def offer(self, answer: Answer | None) -> None:
        if not self.found.done() and (answer is None or (answer.version > self.version and self.is_new(answer.version))):
            self.found.set_result(answer)

    def fail(self, error: StillhouseError) -> None:
        if not self.found.done():
            self.found.set_exception(error)


@dataclass
class Watch:
    """A job that requests wait for."""

    job_id: str
    num_waiting: int = 0
    version: int | None = None
    """As of the last read."""
    must_be_read: bool = False
    """Whatever its version is."""
    polls: set[_Poll] = field(default_factory=set)
    feeds: dict[Kind, Feed] = field(default_factory=dict)
    is_known: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody has read the job, so that a stream of it may begin; or there is an error."""
    error: StillhouseError | None = None
    """Why there is nothing to wait for."""

    def fail(self, error: StillhouseError) -> list[Stream]:
        """Ends whatever waits; returns the streams, which are to say goodbye."""
        self.error = error
        self.is_known.set()
        for poll in self.polls:
            poll.fail(error)
        return [stream for feed in self.feeds.values() for stream in feed.streams]


class Watches:
    """What the requests of this process wait for."""

    def __init__(self, database: Database, redis_url: str, view: View) -> None:
        """``view`` reads the answer of a long poll."""
        self._database, self._view = database, view
        self._listener = Listener(redis_url, changed=self._changed, gap=self._recheck)
        self._watches: dict[str, Watch] = {}
        self._waiting_by_key: defaultdict[str, set[_Poll | Stream]] = defaultdict(set)
        self._revoked: set[str] = set()
        """Keys whose revocation was heard, for a request that had just been let in."""
        self._stale: set[str] = set()
        """Jobs to read."""
        self._keys_are_stale = False
        self._work = asyncio.Event()
        self._executor = ThreadPoolExecutor(_MAX_READERS, thread_name_prefix="watches")
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closing = False
        """Whether this process ends: nobody waits any longer."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Watches"]:
        """Reads and answers until the block ends."""
        async with self._listener.running():
            tasks = [asyncio.create_task(each) for each in (self._read_forever(), self._recheck_forever())]
            try:
                yield self
            finally:
                self.end_all()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._executor.shutdown(cancel_futures=True)

    def end_all(self) -> None:
        """Ends every stream and long poll when the process shuts down, so that none delays it."""
        self.is_closing = True
        waiting = [each for requests in self._waiting_by_key.values() for each in requests]
        for each in waiting:
            if isinstance(each, _Poll):
                each.offer(None)
        self._say_goodbye((each for each in waiting if isinstance(each, Stream)), "this process shuts down; connect again")

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[Watch]:
        """Watches a job: begin before it is read, and no change after that is missed."""
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = Watch(job_id)
        watch.num_waiting += 1
        try:
            yield watch
        finally:
            watch.num_waiting -= 1
            if not watch.num_waiting and self._watches.get(job_id) is watch:
                del self._watches[job_id]

    async def answer(
        self, watch: Watch, key_id: str, *, version: int, is_new: Callable[[int], bool], wait_seconds: float
    ) -> Answer | None:
        """Waits until the job, which had ``version`` while it was watched, has a new one; None: it had none in that time.

        Raises:
            NotFound: the job was deleted.
            Unauthenticated: the key was revoked.
            Unavailable: the watch was given up before anybody had read the job.
        """
        if watch.error is not None:  # since the caller began to watch: nobody reads for it any more
            raise watch.error
        loop = asyncio.get_running_loop()
        poll = _Poll(version, is_new, loop.create_future())
        watch.is_known.set()
        with self._waiting(key_id, poll):
            watch.polls.add(poll)
            timer = loop.call_later(wait_seconds, poll.offer, None)
            try:
                if watch.version is None:
                    watch.version = version
                elif watch.version != version:
                    self._read(watch)
                return await poll.found
            finally:
                timer.cancel()
                watch.polls.discard(poll)

    @contextlib.asynccontextmanager
    async def stream(self, job_id: str, key_id: str, kind: Kind, *, position: int, send: Send) -> AsyncIterator[Stream]:
        """A stream of what follows a position, at once if the job is known here. Raises NotFound, Unavailable."""
        with self.watching(job_id) as watch, self._feed(watch, kind, position) as feed:
            if feed.position < position or not watch.is_known.is_set():
                self._read(watch)
            await watch.is_known.wait()
            if watch.error is not None:
                raise watch.error
            stream = Stream(feed, position, send)
            with self._waiting(key_id, stream):
                yield stream

    @contextlib.contextmanager
    def _feed(self, watch: Watch, kind: Kind, position: int) -> Iterator[Feed]:
        feed = watch.feeds.get(kind)
        if feed is None:
            feed = watch.feeds[kind] = Feed(watch.job_id, kind, position, self._read_missing)
            self._read(watch)
        feed.num_users += 1
        try:
            yield feed
        finally:
            feed.num_users -= 1
            if not feed.num_users:
                feed.close()
                del watch.feeds[kind]

    @contextlib.contextmanager
    def _waiting(self, key_id: str, request: _Poll | Stream) -> Iterator[None]:
        if key_id in self._revoked:
            raise _revoked()
        requests = self._waiting_by_key[key_id]
        requests.add(request)
        if self.is_closing:
            self.end_all()
        try:
            yield
        finally:
            requests.discard(request)
            if not requests:
                self._waiting_by_key.pop(key_id, None)

    # ------------------------------------------------------------ what to read

    def _changed(self, ids: Set[str]) -> None:
        stale = ids & self._watches.keys()
        if stale:
            self._stale |= stale
            self._work.set()
        for key_id in ids:
            if key_id.startswith("key_"):
                self._revoked.add(key_id)
                self._end_key(key_id)

    def _recheck(self) -> None:
        if self._watches:
            self._stale |= self._watches.keys()
            self._keys_are_stale = True
            self._work.set()

    def _read(self, watch: Watch) -> None:
        watch.must_be_read = True
        self._stale.add(watch.job_id)
        self._work.set()

    async def _recheck_forever(self) -> None:
        seconds = 0.0
        while True:
            await asyncio.sleep(_RECHECK_SECONDS)
            seconds += _RECHECK_SECONDS
            if seconds >= _SAFETY_SECONDS or not self._listener.is_listening:
                self._recheck()
                seconds = 0.0

    # ------------------------------------------------------------ reading

    async def _read_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            wanted = self._take_wanted()
            try:
                news = await self._in_thread(partial(read_news, wanted=wanted, view=self._view))
            except Exception as error:  # noqa: BLE001 - nobody else reads for those who wait
                log = logger.warning if isinstance(error, StillhouseError) else logger.exception
                log("waiting requests could not be read for: %s", error)
                self._try_again(wanted, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._tell(wanted, news)

    def _take_wanted(self) -> Wanted:
        watches = [self._watches[job_id] for job_id in self._stale & self._watches.keys()]
        self._stale.clear()
        wanted = Wanted(
            versions={each.job_id: None if each.must_be_read else each.version for each in watches},
            positions={},
            polled={each.job_id for each in watches if each.polls},
            keys=set(self._waiting_by_key) if self._keys_are_stale else set(),
        )
        self._keys_are_stale = False
        for watch in watches:
            watch.must_be_read = False
            for kind, feed in watch.feeds.items():
                wanted.positions.setdefault(kind, {})[watch.job_id] = feed.position
        return wanted

    def _tell(self, wanted: Wanted, news: News) -> None:
        """Answers polls and advances feeds; ends what waits for a job that is gone, or with a key that is."""
        for key_id in wanted.keys - news.valid_keys:
            self._end_key(key_id)
        for job_id in wanted.versions:
            watch = self._watches.get(job_id)
            if watch is None:
                continue
            if job_id not in news.states:
                del self._watches[job_id]
                error = NotFound(f"there is no job {job_id!r}; GET /v1/jobs lists those that exist")
                self._say_goodbye(watch.fail(error), "this job was deleted")
            elif job_id in news.changed:
                self._tell_of(watch, wanted, news)

    def _tell_of(self, watch: Watch, wanted: Wanted, news: News) -> None:
        job_id, state = watch.job_id, news.states[watch.job_id]
        watch.version = state.version
        watch.is_known.set()
        answer = news.answers.get(job_id)
        if answer is not None:
            self._begin(_offer(list(watch.polls), answer))
        elif watch.polls:  # which came while this was read
            self._read(watch)
        for kind, feed in watch.feeds.items():
            if wanted.positions.get(kind, {}).get(job_id) == feed.position:
                found, more = news.messages[kind]
                feed.advance(found.get(job_id, []), is_complete=state.is_final and job_id not in more)
                if job_id in more:
                    self._read(watch)

    def _try_again(self, wanted: Wanted, error: Exception) -> None:
        """Keeps who waits for a job that is known, who will get what it misses; others are told that the database is away."""
        unavailable = (
            error if isinstance(error, StillhouseError) else Unavailable("this cannot be read at this moment; try again")
        )
        for job_id in wanted.versions:
            watch = self._watches.get(job_id)
            if watch is None:
                continue
            if not watch.is_known.is_set():
                del self._watches[job_id]
                watch.fail(unavailable)
            else:
                self._read(watch)
        self._keys_are_stale |= bool(wanted.keys)
        self._work.set()

    async def _read_missing(self, feed: Feed, position: int) -> Messages:
        ended = {feed.job_id} if feed.is_complete else set()
        found, _ = await self._in_thread(partial(feed.kind, positions={feed.job_id: position}, ended=ended))
        if feed.job_id not in found:
            raise NotFound(f"there is no job {feed.job_id!r}; GET /v1/jobs lists those that exist")
        return found[feed.job_id]

    async def _in_thread(self, work: Callable[[Session], T]) -> T:
        """Raises Unavailable while the database is."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._database.run, work)
        except Exception as error:
            if meaning_of(error) is not Meaning.AWAY:
                raise
            raise Unavailable("the database does not answer at this moment; try again") from error

    # ------------------------------------------------------------ ends

    def _end_key(self, key_id: str) -> None:
        requests = list(self._waiting_by_key.get(key_id, ()))
        for request in requests:
            if isinstance(request, _Poll):
                request.fail(_revoked())
        self._say_goodbye((each for each in requests if isinstance(each, Stream)), _revoked().detail)

    def _say_goodbye(self, streams: Iterable[Stream], why: str) -> None:
        leaving = list(streams)
        for stream in leaving:
            stream.say_goodbye(why)
        self._begin(write_to_all(leaving, Stream.catch_up))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class StreamResponse(Response):
    """Streams what follows a position of a job, up to the job's final state."""

    background = None

    def __init__(self, watches: Watches, job_id: str, key_id: str, kind: Kind, *, position: int) -> None:
        self._open = partial(watches.stream, job_id, key_id, kind, position=position)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._open(send=send) as stream:
            await stream.serve(receive, head=is_head(scope))


async def _offer(polls: list[_Poll], answer: Answer) -> None:
    """Answers some at a time, so that other requests have their turn between them."""
    for number, poll in enumerate(polls, start=1):
        poll.offer(answer)
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


def _revoked() -> Unauthenticated:
    return Unauthenticated("this key was revoked; ask an admin for a new one")
