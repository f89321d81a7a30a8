"""Reading of all data before the first training step: every split, as every network of the job reads it."""

from collections.abc import Iterable, Iterator

from service.spec.warning_message import WarningMessage
from worker.data import Preprocessing, Split, UnusableData
from worker.data.language_preprocessing import LanguagePreprocessing
from worker.data.prepared import Losses
from worker.data.reading import read_split
from worker.data.text import TextPreprocessing
from worker.job.networks import Networks
from worker.job.roles import Role


def read_all(networks: Networks, splits: Iterable[Split], *, roles: Iterable[Role] | None = None) -> list[WarningMessage]:
    """Reads the splits by each network that reads data: teachers, the chain, the student, whose control reads the same.

    Texts are tokenised here and kept; see :func:`worker.data.reading.read_split`. ``roles`` are some of the networks. Returns
    what of the texts the networks do not read.

    Raises:
        UnusableData: a network cannot read a sample; the message names it, the split, the row and the line.
    """
    splits = list(splits)
    readers: list[tuple[Preprocessing, list[Role]]] = []
    for role in [*networks.teachers, *networks.chain, "student"] if roles is None else roles:
        preprocessing = networks.preprocessing_of(role)
        sharing = next((roles for known, roles in readers if known is preprocessing), None)
        if sharing is None:
            readers.append((preprocessing, sharing := []))
        sharing.append(role)
    found: list[WarningMessage] = []
    for preprocessing, sharing in readers:
        for split in splits:
            try:
                for samples in (split.own, split):  # some networks learn without the transfer rows, and answer on them
                    losses = read_split(samples, preprocessing).losses
            except UnusableData as error:
                raise UnusableData(f"{error} (as the {sharing[0]} reads it)") from error
            found += _told(losses, split, preprocessing, by=" and the ".join(sharing))
    return found


def _told(losses: Losses, split: Split, preprocessing: Preprocessing, *, by: str) -> Iterator[WarningMessage]:
    if not isinstance(preprocessing, TextPreprocessing | LanguagePreprocessing):
        return
    limit = f"{preprocessing.max_length:,} tokens"
    remedy = "raise dataset.row_tokens and the tokenizer's max_length" if split.labels.numel() == 0 else "raise max_length"
    for code, what, (count, first), how in (
        ("texts_cut", "answers" if split.answers else "texts", losses.texts, "at their end"),
        ("prompts_cut", "prompts", losses.prompts, "at their beginning"),
    ):
        if count:
            message = (
                f"{count:,} of {len(split):,} {what} of the {split.name} are cut {how}, as the {by} reads {limit}; the first: "
                f"{split.place(first)}. To read more, {remedy}, as far as the network allows"
            )
            yield WarningMessage(code=code, message=message)
    dropped, total = losses.tokens
    if dropped:
        message = (
            f"the last {dropped:,} of {total:,} tokens of the {split.name}, as the {by} reads it, fill no row of {limit} and are "
            "dropped"
        )
        yield WarningMessage(code="tokens_dropped", message=message)
