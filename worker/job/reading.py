"""Reading of all data before the first training step: every split, as every network of the job reads it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Thread

from service.spec.methods import DeepMutual
from service.spec.warning_message import WarningMessage
from worker.data import Preprocessing, Split, UnusableData
from worker.data.prepared import NO_LOSSES
from worker.data.text.reading import count_characters, every_nth_text
from worker.job.networks import Networks
from worker.job.roles import STUDENT, Role
from worker.protocol import Event, Reporter, StopRequest

AT_ONCE_CHARACTERS = 10_000_000
"""Of a split: a tokenizer reads them in about ten seconds."""
SAMPLE_CHARACTERS = 1_000_000


def read_all(
    networks: Networks,
    splits: Iterable[Split],
    *,
    roles: Iterable[Role] | None = None,
    background: "BackgroundReading | None" = None,
) -> list[WarningMessage]:
    """Reads the splits by each network that reads data: teachers, the chain, the student, whose control reads the same.

    Texts are tokenised here and kept; see :func:`worker.data.text.reading.prepare_once`. ``roles`` are some of the networks. Of a
    large split a network that is trained after a teacher reads a sample, and the whole in ``background`` if that is given.
    Returns what of the texts the networks do not read.

    Raises:
        UnusableData: a network cannot read a sample; the message names it, the split, the row and the line.
    """
    splits = list(splits)
    readers: list[tuple[Preprocessing, list[Role]]] = []
    for role in [*networks.specs.teachers, *networks.specs.chain, STUDENT] if roles is None else roles:
        preprocessing = networks.preprocessing_of(role)
        sharing = next((roles for known, roles in readers if known is preprocessing), None)
        if sharing is None:
            readers.append((preprocessing, sharing := []))
        sharing.append(role)
    found: list[WarningMessage] = []
    later: list[Callable[[], list[WarningMessage]]] = []
    is_peer = isinstance(networks.spec.method, DeepMutual)
    has_time = any(networks.specs.is_trained(role) for role in networks.specs.teachers) and not is_peer
    for preprocessing, sharing in readers:
        is_later = background is not None and has_time and not networks.specs.teachers.keys() & set(sharing)
        for split in splits:
            if is_later and count_characters(split) > AT_ONCE_CHARACTERS:
                _read(every_nth_text(split, SAMPLE_CHARACTERS), preprocessing, sharing)
                later.append(partial(_read, split, preprocessing, sharing))
            else:
                found += _read(split, preprocessing, sharing)
    if background is not None:
        background.start(later)
    return found


class BackgroundReading:
    """Reads beside the training of a teacher what is too large to be read before it. Its failure ends the training."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: Exception | None = None
        self.warnings: list[WarningMessage] = []
        """What of the texts the networks do not read, so far."""

    def start(self, work: Sequence[Callable[[], list[WarningMessage]]]) -> None:
        """Does the work in a thread of its own, in order, up to the first failure."""
        if work:
            self._thread = Thread(target=self._run, args=(work,), name="reading", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Waits for the end. Raises what :meth:`raise_failure` raises."""
        if self._thread is not None:
            self._thread.join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raises UnusableData if a sample was found that a network cannot read."""
        if self._failure is not None:
            raise self._failure

    def _run(self, work: Sequence[Callable[[], list[WarningMessage]]]) -> None:
        try:
            for read in work:
                self.warnings += read()
        except Exception as error:  # noqa: BLE001 - raised in the trainer's own thread
            self._failure = error


class ReadingReporter:
    """A reporter that ends the training where a reading in the background has failed."""

    def __init__(self, reporter: Reporter, reading: BackgroundReading) -> None:
        self._reporter, self._reading = reporter, reading

    def emit(self, event: Event) -> None:
        self._reporter.emit(event)

    def stop_request(self) -> StopRequest | None:
        self._reading.raise_failure()
        return self._reporter.stop_request()


def _read(split: Split, preprocessing: Preprocessing, roles: Sequence[Role]) -> list[WarningMessage]:
    losses = NO_LOSSES
    try:
        for samples in (split.own, split):  # some networks learn without the transfer rows, and answer on them
            losses = preprocessing.read(samples).losses
    except UnusableData as error:
        raise UnusableData(f"{error} (as the {roles[0]} reads it)") from error
    return list(preprocessing.describe_losses(losses, split, readers=" and the ".join(map(str, roles))))
