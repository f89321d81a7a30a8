"""What the outputs of a network of ``transformers`` mean, by ``problem_type`` of its ``config.json``.

Invariant: outputs teach what they mean alone: one class of several by a softmax, each class by itself by a sigmoid, or numbers.
"""

from typing import Final, Literal

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
ONE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
NUMBERS: Final = "regression"
OUTPUTS: dict[ProblemType, str] = {
    NUMBERS: "a number",
    ONE_LABEL: "a class",
    MULTI_LABEL: "a class by itself, a yes or no through a sigmoid,",
}
"""What stands at an output, for messages."""


def how_to_agree(kind: ProblemType) -> str:
    """What to do about a teacher whose outputs mean something else than the dataset's, which are of that kind."""
    return (
        "Choose a teacher of the dataset's own kind. If it is of that kind, and its folder does not say so, write "
        f'"problem_type": "{kind}" into its config.json and give it anew.'
    )
