"""Errors of a dataset or a tokenizer before training."""


class UnusableData(Exception):
    """The dataset cannot be trained on; the message says where it fails and what to change."""


class NoCanvas(UnusableData):
    """The images are of several sizes, and nothing says to which they are fitted; the message says what to name."""


class UnusableRow(UnusableData):
    """One sample cannot be trained on. Whoever knows the split names the row's place in the file."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"row {index}: {problem}")
        self.index, self.problem = index, problem
        """The sample's number in its split, from 0; what is wrong with it, and what to change."""


class UnreadableTokenizer(Exception):
    """A network's folder holds no tokenizer that can be loaded; the message names the file and what to change."""


class UnfitInputs(Exception):
    """A network that was trained before cannot read the dataset's samples; the message says why and what to change."""
