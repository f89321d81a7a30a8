"""All subjects, by task."""

from tests.truth.images import IMAGES
from tests.truth.sounds import SPECTROGRAMS, WAVEFORMS
from tests.truth.subject import Subject

SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in (IMAGES, WAVEFORMS, SPECTROGRAMS)}
