"""What a user should know of data or of a result that is used all the same."""

from service.spec.strict import StrictModel


class WarningMessage(StrictModel):
    """One warning about a dataset or about a job's result."""

    code: str
    """A stable word for programs, such as ``split_unused`` or ``student_at_chance``."""
    message: str
    """For people: what was found, with its figures, and what to do about it."""
