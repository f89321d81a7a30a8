"""All subjects, by task."""

from tests.truth.subject import Subject

SUBJECTS: dict[str, Subject] = {}
