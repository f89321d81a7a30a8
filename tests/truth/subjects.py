"""All subjects, by task."""

from tests.truth.embeddings import sentence_embedding
from tests.truth.images import IMAGES
from tests.truth.language_models import causal_lm
from tests.truth.sounds import SPECTROGRAMS, WAVEFORMS
from tests.truth.subject import Subject
from tests.truth.texts import text_classification
from tests.truth.words import token_classification

_EACH = (IMAGES, WAVEFORMS, SPECTROGRAMS, text_classification(), token_classification(), sentence_embedding(), causal_lm())
SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in _EACH}
