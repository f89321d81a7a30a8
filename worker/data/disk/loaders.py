"""Loader processes: they make batches ahead of the training, each on one core.

The trainer sends what is to be made over a socket to each, batch by batch in turn; a batch comes back as an anonymous file in
memory, whose descriptor goes through the socket: nothing of it has a name, a limit of its own (as ``/dev/shm`` has) or outlives
its last reader. A loader that ends is replaced, and what it had to make is made again. Invariant: batches come in the order of
their announcement, whatever loader made them, or not at all, and then the trainer makes them itself.
"""

import logging
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import reduction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.forked import Connection, ForkedProcess, settle_in
from worker.host_memory import free_host_bytes

Make = Callable[[Tensor, int], Sequence[Tensor | None]]
"""From sample indices (B,) and an epoch to the tensors of a batch."""
Made = list[Tensor | None]

_AHEAD_EACH = 2
"""Batches that a loader has to make."""
_KEPT_BYTES = 128 * 2**20
"""The most of the batches last made, which several networks or a second pass may ask for again."""
_KEPT_SHARE = 16
"""The part of the free memory that they may take."""
_MOST_DEATHS = 20
"""After so many the trainer makes the rest itself."""
_PAGE = 4096

logger = logging.getLogger(__name__)


class _Task(NamedTuple):
    maker: int
    epoch: int
    indices: bytes
    """int64 (B,)."""


@dataclass
class _Loader:
    process: ForkedProcess
    known: set[int] = field(default_factory=set)
    """Makers that it was sent."""
    tasks: deque[_Task] = field(default_factory=deque)
    """What it has to make, in its order."""


class Loaders:
    """The loader processes of this trainer, which all of its splits share."""

    @staticmethod
    @cache
    def of_process(count: int) -> "Loaders | None":
        """Those of this process; None for no processes. They start with the first announcement."""
        return Loaders(count) if count else None

    def __init__(self, count: int) -> None:
        self._count = count
        self._loaders: list[_Loader] = []
        self._makers: list[Make] = []
        self._announced: deque[_Task] = deque()
        self._running: deque[tuple[_Loader, _Task]] = deque()
        self._kept: deque[tuple[_Task, Made]] = deque()
        self._num_deaths = 0
        free = free_host_bytes()
        self._kept_bytes = _KEPT_BYTES if free is None else min(_KEPT_BYTES, free / _KEPT_SHARE)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [loader.process.pid for loader in self._loaders]

    def announce(self, batches: Iterable[tuple[Make, Tensor, int]]) -> None:
        """Says what is asked for next; what was announced before and nobody has begun is not made."""
        tasks = (_task(self._number(maker), indices, epoch) for maker, indices, epoch in batches)
        self._announced = deque(dict.fromkeys(tasks))  # what several networks ask for is made once
        self._fill()

    def take(self, maker: Make, indices: Tensor, epoch: int) -> Made | None:
        """What was made ahead for these samples; None if it was not announced."""
        task = _task(self._number(maker), indices, epoch)
        for kept, made in self._kept:
            if kept == task:
                return made
        if all(running != task for _, running in self._running) and task not in self._announced:
            return None
        while self._running:
            loader, running = self._running[0]
            received = self._receive(loader)
            self._fill()
            if running == task:
                return received
        return None

    def end(self) -> None:
        """Ends the processes."""
        for loader in self._loaders:
            loader.process.end()
        self._loaders.clear()
        self._running.clear()
        self._announced.clear()

    def _number(self, maker: Make) -> int:
        for number, other in enumerate(self._makers):
            if other == maker:
                return number
        self._makers.append(maker)
        return len(self._makers) - 1

    def _fill(self) -> None:
        """Hands out what is announced, in turn, as far as loaders may be ahead."""
        while self._announced and self._num_deaths < _MOST_DEATHS:
            if len(self._loaders) < self._count:
                self._loaders.append(_started())
            loader = min(self._loaders, key=lambda each: len(each.tasks))
            if len(loader.tasks) >= _AHEAD_EACH:
                return
            task = self._announced.popleft()
            loader.tasks.append(task)
            self._running.append((loader, task))
            self._send(loader, task)

    def _send(self, loader: _Loader, task: _Task) -> None:
        maker = None if task.maker in loader.known else self._makers[task.maker]
        loader.known.add(task.maker)
        try:
            loader.process.socket.send((task, maker))
        except OSError:
            self._replace(loader)

    def _receive(self, loader: _Loader) -> Made | None:
        """Waits for the next batch of a loader, which is the oldest that runs; None if it could not be made."""
        while True:
            try:
                made = _received(loader.process.socket)
                break
            except (EOFError, OSError):
                self._replace(loader)
                if self._num_deaths >= _MOST_DEATHS:
                    made = None
                    break
        task = loader.tasks.popleft()
        self._running.popleft()
        if made is not None:
            self._keep(task, made)
        return made

    def _replace(self, loader: _Loader) -> None:
        """Starts another process in the place of one that has ended, for the same tasks."""
        self._num_deaths += 1
        logger.warning(
            "Loader process %d has ended; %d batches are made again by another.", loader.process.pid, len(loader.tasks)
        )
        loader.process.end()
        if self._num_deaths >= _MOST_DEATHS:
            logger.warning("Loader processes have ended %d times: the trainer reads the rest itself.", self._num_deaths)
            return
        loader.process, loader.known = _started().process, set()
        for task in loader.tasks:
            self._send(loader, task)

    def _keep(self, task: _Task, made: Made) -> None:
        self._kept.append((task, made))
        while len(self._kept) > 1 and sum(_num_bytes(each) for _, each in self._kept) > self._kept_bytes:
            self._kept.popleft()


def _task(maker: int, indices: Tensor, epoch: int) -> _Task:
    return _Task(maker, epoch, indices.cpu().to(torch.int64).numpy().tobytes())


def _num_bytes(made: Made) -> int:
    return sum(0 if each is None else each.nbytes for each in made)


def _started() -> _Loader:
    return _Loader(ForkedProcess(_load, preload=__name__))


# The loader's side.


def _load(socket: Connection) -> None:
    """Runs a loader process, until its trainer ends."""
    settle_in()
    torch.set_num_threads(1)
    makers: dict[int, Make] = {}
    try:
        for task, maker in _requests(socket):
            if maker is not None:
                makers[task.maker] = maker
            indices = torch.from_numpy(np.frombuffer(task.indices, dtype=np.int64).copy())
            try:
                made = makers[task.maker](indices, task.epoch)
            except Exception:  # noqa: BLE001 - the trainer makes it again and so finds the same error where it is reported
                socket.send(None)
                continue
            _send_made(socket, made)
    except (EOFError, OSError):
        return


def _requests(socket: Connection) -> Iterator[tuple[_Task, Make | None]]:
    while True:
        yield socket.recv()


class _Layout(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int


def _send_made(socket: Connection, made: Sequence[Tensor | None]) -> None:
    arrays = [None if each is None else np.ascontiguousarray(each.numpy()) for each in made]
    layouts: list[_Layout | None] = []
    size = 0
    for array in arrays:
        layouts.append(None if array is None else _Layout(str(array.dtype), array.shape, size))
        size += 0 if array is None else -(-array.nbytes // _PAGE) * _PAGE
    with _memory_file(size) as descriptor:
        for array, layout in zip(arrays, layouts, strict=True):
            if array is not None and layout is not None and array.nbytes:
                _write(descriptor, array.reshape(-1).view(np.uint8).data, layout.start)
        socket.send((layouts, size))
        reduction.send_handle(socket, descriptor, os.getppid())


@contextmanager
def _memory_file(size: int) -> Iterator[int]:
    """The descriptor of a file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batch")
    else:
        descriptor, path = tempfile.mkstemp()
        Path(path).unlink()
    try:
        os.ftruncate(descriptor, max(_PAGE, size))
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: memoryview, start: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], start + written)


def _received(socket: Connection) -> Made | None:
    told: Any = socket.recv()
    if told is None:
        return None
    layouts, size = told
    descriptor = reduction.recv_handle(socket)
    try:
        memory = mmap.mmap(descriptor, max(_PAGE, size))
    finally:
        os.close(descriptor)
    made: Made = []
    for layout in layouts:
        if layout is None:
            made.append(None)
            continue
        count = int(np.prod(layout.shape))
        array = np.frombuffer(memory, dtype=layout.dtype, count=count, offset=layout.start)
        made.append(torch.from_numpy(array.reshape(layout.shape)))
    return made
