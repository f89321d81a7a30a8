"""Classes and numbers of clips of sound."""

from textwrap import dedent

from torch import nn

from service.spec.architectures import Architecture
from service.spec.fit import usual_features
from service.spec.inputs import Features, TokenizerSpec
from service.spec.report import Report
from worker.data import Data, Preprocessing
from worker.data.audio.clips import SoundPreprocessing, measure_sound
from worker.models import LoadedNetwork
from worker.models.classifiers import AudioClassifiers
from worker.tasks.card_text import library_program, outputs_read, own_program
from worker.tasks.fit_clips import fit_waveforms
from worker.tasks.labelled import LabelledTask

_OWN_IMPORTS = "import soundfile\nimport torch\nfrom stillhouse import Waveform, load_network\n"
_OWN_READER = """\
    clip = Waveform(*soundfile.read("clip.wav", dtype="float32"))  # one channel, at any rate
    inputs = student.preprocessing(student.preprocessing.prepare([clip]))
    """
_LIBRARY_READER = """\
    import soundfile
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    extractor = AutoFeatureExtractor.from_pretrained("student")
    student = AutoModelForAudioClassification.from_pretrained("student").eval()
    clip, rate = soundfile.read("clip.wav", dtype="float32")  # one channel, at extractor.sampling_rate
    """
_SPECTROGRAM = 'inputs = extractor(clip, sampling_rate=rate, return_tensors="pt").to(student.dtype)\n'
_WAVEFORM = """\
    as_trained = {"padding": "max_length", "max_length": extractor.num_samples, "truncation": True}
    inputs = extractor(clip, sampling_rate=rate, **as_trained, return_tensors="pt").to(student.dtype)
    """


class AudioClassification(LabelledTask):
    """Networks that map clips of sound to outputs of their targets."""

    name = "audio-classification"
    network = AudioClassifiers("audio-classification")

    def fit_inputs(self, loaded: LoadedNetwork, data: Data, *, source: str) -> Preprocessing:
        reads = loaded.preprocessing
        if isinstance(reads, SoundPreprocessing) and not reads.reads_spectrograms:
            return fit_waveforms(loaded.network, reads, data)
        return reads

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

    def onnx_form(self, network: nn.Module, preprocessing: Preprocessing | None, data: Data) -> tuple[nn.Module, tuple[str, ...]]:
        return network, ("input_values",)

    def usage(self, report: Report, *, is_own: bool) -> str:
        if is_own:
            return own_program(_OWN_IMPORTS, dedent(_OWN_READER), read=outputs_read(report))
        reads_waveforms = report.data.input_shape is not None and len(report.data.input_shape) == 1
        inputs = _WAVEFORM if reads_waveforms else _SPECTROGRAM
        return library_program(dedent(_LIBRARY_READER) + dedent(inputs), read=outputs_read(report))
