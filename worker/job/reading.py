"""Reading of all data before the first training step: every split, as every network of the job reads it."""

from collections.abc import Iterable

from worker.data import Split, UnusableData
from worker.data.reading import read_split
from worker.job.networks import Networks
from worker.job.roles import Role


def read_all(networks: Networks, splits: Iterable[Split], *, roles: Iterable[Role] | None = None) -> None:
    """Reads the splits by each network that reads data: teachers, the chain, the student, whose control reads the same.

    Texts are tokenised here and kept; see :func:`worker.data.reading.read_split`. ``roles`` are some of the networks.

    Raises:
        UnusableData: a network cannot read a sample; the message names it, the split, the row and the line.
    """
    splits = list(splits)
    for role in [*networks.teachers, *networks.chain, "student"] if roles is None else roles:
        preprocessing = networks.preprocessing_of(role)
        for split in splits:
            try:
                for samples in (split.own, split):  # some networks learn without the transfer rows, and answer on them
                    read_split(samples, preprocessing)
            except UnusableData as error:
                raise UnusableData(f"{error} (as the {role} reads it)") from error
