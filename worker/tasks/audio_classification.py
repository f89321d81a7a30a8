"""Classes and numbers of clips of sound."""

from service.spec.architectures import Architecture
from service.spec.fit import usual_features
from service.spec.inputs import Features, TokenizerSpec
from worker.data import Data, Preprocessing
from worker.data.sound import measure_sound
from worker.tasks.labelled import LabelledTask


class AudioClassification(LabelledTask):
    """Networks that map clips of sound to outputs of their targets."""

    name = "audio-classification"

    def preprocessing(
        self,
        data: Data,
        architecture: Architecture,
        *,
        tokenizer: TokenizerSpec | None = None,
        features: Features | None = None,
        teachers: Preprocessing | None = None,
    ) -> Preprocessing:
        clips = data.splits["train"].inputs
        return measure_sound(clips, features or usual_features(architecture), most_seconds=data.clip_seconds)
