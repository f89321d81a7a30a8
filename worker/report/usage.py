"""The lines of Python in a model card that load a student and use it: a whole program for each kind of network.

Invariant: what is printed runs as it stands beside the folder ``student``, once the files that it names are there.
"""

from textwrap import dedent
from typing import Literal

from service.spec.data import EMBEDDING
from service.spec.tasks import TASKS, TaskName

_OWN_IMPORTS = {
    "image": "import numpy\nimport torch\n{images}from stillhouse import load_network\n",
    "audio": "import soundfile\nimport torch\nfrom stillhouse import Waveform, load_network\n",
}
_OWN_READERS = {
    "image": """\
        {pixels}
        images = torch.from_numpy(pixels.reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)
        inputs = student.preprocessing(images)
        """,
    "audio": """\
        clip = Waveform(*soundfile.read("clip.wav", dtype="float32"))  # one channel, at any rate
        inputs = student.preprocessing(student.preprocessing.prepare([clip]))
        """,
}
_LIBRARY_READERS = {
    "image": """\
        import numpy
        {images}from transformers import AutoImageProcessor, AutoModelForImageClassification

        processor = AutoImageProcessor.from_pretrained("student")
        student = AutoModelForImageClassification.from_pretrained("student").eval()
        {pixels}
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        inputs = processor(pixels, input_data_format="channels_last", return_tensors="pt")
        """,
    "text": """\
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained("student")
        student = AutoModelForSequenceClassification.from_pretrained("student").eval()
        inputs = tokenizer(["some text"], padding=True, truncation=True, return_tensors="pt")
        """,
    "spectrogram": """\
        import soundfile
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        extractor = AutoFeatureExtractor.from_pretrained("student")
        student = AutoModelForAudioClassification.from_pretrained("student").eval()
        clip, rate = soundfile.read("clip.wav", dtype="float32")  # one channel, at extractor.sampling_rate
        inputs = extractor(clip, sampling_rate=rate, return_tensors="pt")
        """,
    "waveform": """\
        import soundfile
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        extractor = AutoFeatureExtractor.from_pretrained("student")
        student = AutoModelForAudioClassification.from_pretrained("student").eval()
        clip, rate = soundfile.read("clip.wav", dtype="float32")  # one channel, at extractor.sampling_rate
        as_trained = {"padding": "max_length", "max_length": extractor.num_samples, "truncation": True}
        inputs = extractor(clip, sampling_rate=rate, **as_trained, return_tensors="pt")
        """,
}
Pixels = Literal["8 bits", "0 to 1", "other"]
"""How the pixels of the data were stored, with black and white where they are known."""
_PIXELS: dict[Pixels, str] = {
    "8 bits": 'pixels = numpy.array(ImageOps.exif_transpose(Image.open("image.png")))  # of the size and mode of its data',
    "0 to 1": 'pixels = numpy.array(ImageOps.exif_transpose(Image.open("image.png")), dtype="float32") / 255  # as its data were',
    "other": 'pixels = numpy.load("image.npy")  # of the size and range of its data',
}
_GENERATION = """\
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModelForCausalLM.from_pretrained("student")
    prompt = tokenizer("Once", return_tensors="pt", add_special_tokens=False)
    print(tokenizer.decode(student.generate(**prompt, max_new_tokens=20)[0]))
    """
_OWN_SEVERAL = """\
    for target, outputs in zip(student.targets, student.targets.split(logits[0])):
        print(target.name, outputs.item() if target.classes is None else target.classes[int(outputs.argmax())])
    """
_LIBRARY_SEVERAL = """\
    outputs = iter(logits[0].tolist())
    for target, classes in json.loads(Path("student/labels.json").read_text(encoding="utf-8")).items():
        if classes is None:
            print(target, next(outputs))
        else:
            print(target, max(classes, key={name: next(outputs) for name in classes}.get))
    """


_EMBEDDING = """\
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("student")
    student = AutoModel.from_pretrained("student").eval()
    inputs = tokenizer(["some text", "another"], padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = student(**inputs).last_hidden_state
    counted = inputs["attention_mask"].unsqueeze(-1)
    embeddings = (states * counted).sum(dim=1) / counted.sum(dim=1)  # the mean of the tokens, as 1_Pooling/config.json says
    print(torch.nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=0).item())
    """


def usage(task: TaskName, *, is_own: bool, reads_waveforms: bool, is_one_choice: bool, pixels: Pixels = "8 bits") -> str:
    """The program for a student of that task.

    Args:
        is_own: one of the project's own networks, not one of ``transformers``.
        reads_waveforms: rather than spectrograms; of sound alone.
        is_one_choice: its one target has classes; else each target is told by its name.
        pixels: those that it was trained on; of images alone.
    """
    if task == "causal-lm":
        return dedent(_GENERATION).rstrip()
    if task == EMBEDDING:
        return dedent(_EMBEDDING).rstrip()
    kind = TASKS[task].input_kind
    if is_own:
        parts = [
            "from pathlib import Path\n\n" + _with_pixels(_OWN_IMPORTS[kind], pixels) + "\n",
            'student = load_network(Path("student"))\n',
            _with_pixels(dedent(_OWN_READERS[kind]), pixels),
            "with torch.no_grad():\n    logits = student.network(inputs)\n",
            "print(student.classes[int(logits.argmax())])" if is_one_choice else dedent(_OWN_SEVERAL),
        ]
    else:
        reader = kind if kind != "audio" else "waveform" if reads_waveforms else "spectrogram"
        parts = [
            "" if is_one_choice else "import json\nfrom pathlib import Path\n\n",
            "import torch\n",
            _with_pixels(dedent(_LIBRARY_READERS[reader]), pixels),
            "with torch.no_grad():\n    logits = student(**inputs).logits\n",
            "print(student.config.id2label[int(logits.argmax())])" if is_one_choice else dedent(_LIBRARY_SEVERAL),
        ]
    return "".join(parts).rstrip()


def _with_pixels(code: str, pixels: Pixels) -> str:
    reads_files = "from PIL import Image, ImageOps\n" if "Image" in _PIXELS[pixels] else ""
    return code.replace("{images}", reads_files).replace("{pixels}", _PIXELS[pixels])
