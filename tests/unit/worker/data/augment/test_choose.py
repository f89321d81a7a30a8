"""What each epoch sees: of stored inputs before a network's preprocessing, of spectrograms behind it, by the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from service.formats import Waveform
from service.spec.augment import Augment, AugmentationSpec
from service.spec.inputs import LogMelFeatures, TokenizerSpec, WaveformFeatures
from service.spec.tasks import TaskName
from worker.data import Data, PixelPreprocessing, Preprocessing, Split
from worker.data.audio.clips import measure_sound
from worker.data.augment import EpochViews
from worker.data.augment.choose import UnfitAugmentation, check_same_views, epoch_views
from worker.data.text.texts import train_text_preprocessing
from worker.data.text.tokenization import NO_TOKEN
from worker.targets import Targets

AUGMENT: TypeAdapter[list[AugmentationSpec]] = TypeAdapter(Augment)
PIXELS = PixelPreprocessing(mean=(0.5,), std=(0.5,))
TEXTS = ["one and two", "three and four", "five, six", "seven or eight"]


def data(inputs: Any, task: TaskName, *, max_value: float | None = None) -> Data:
    split = Split(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    return Data(task, {"train": split}, Targets.of_classes(["a", "b"]), max_value=max_value)


def clips() -> list[Waveform]:
    generator = np.random.default_rng(0)
    return [Waveform(generator.standard_normal(4000).astype(np.float32), 16_000) for _ in range(4)]


def views(augment: list[Any], of: Data, preprocessing: Preprocessing) -> EpochViews:
    return epoch_views(AUGMENT.validate_python(augment), data=of, preprocessing=preprocessing, seed=3)


def seen(made: EpochViews, inputs: Tensor, *, epoch: int = 0) -> Tensor:
    return made.stored(lambda places: inputs[places], torch.arange(len(inputs)), epoch=epoch).inputs


@pytest.mark.parametrize(
    ("images", "max_value", "black", "white"),
    [
        (torch.randint(0, 9, (4, 1, 8, 8), dtype=torch.uint8), 16.0, 0, 16),
        (torch.linspace(-2, 3, 256).view(4, 1, 8, 8), None, -2, 3),
    ],
    ids=["8 bit", "float"],
)
def test_black_and_white_are_those_of_the_stored_images(images: Tensor, max_value: Any, black: int, white: int) -> None:
    of = data(images, "image-classification", max_value=max_value)
    for fill, value in ((0, black), (1, white)):
        hidden = seen(views([{"name": "cutout", "size": 7, "fill": fill}], of, PIXELS), images)
        assert (hidden[hidden != images] == value).all()
        assert (hidden != images).any()


def test_spectrograms_are_masked_behind_the_preprocessing_and_waveforms_before_it() -> None:
    reads = measure_sound(clips(), LogMelFeatures(mels=16), most_seconds=1)
    of, waveforms = data(clips(), "audio-classification"), reads.prepare(clips())
    made = views(["specaugment", "gain"], of, reads)
    assert torch.equal(seen(made, waveforms), seen(views(["gain"], of, reads), waveforms))
    spectrograms = reads(waveforms)
    read = made.read(spectrograms, torch.arange(4), epoch=0)
    assert read.shape == spectrograms.shape
    assert ((read != spectrograms).flatten(1).any(dim=1)).all()
    assert torch.equal(made.read(spectrograms[2:], torch.tensor([2, 3]), epoch=0), read[2:])
    assert not torch.equal(made.read(spectrograms, torch.arange(4), epoch=1), read)


def test_what_acts_on_spectrograms_draws_other_numbers_than_what_acts_on_waveforms() -> None:
    reads = measure_sound(clips(), LogMelFeatures(mels=16), most_seconds=1)
    made = views(["specaugment", "gain", "time-shift"], data(clips(), "audio-classification"), reads)
    assert (made.of_stored.first_stream, made.of_spectrograms.first_stream) == (0, 2)


def test_spectrograms_cannot_be_masked_where_waveforms_are_read() -> None:
    reads = measure_sound(clips(), WaveformFeatures(name="waveform"), most_seconds=1)
    with pytest.raises(UnfitAugmentation, match="specaugment is for log-mel inputs"):
        views(["specaugment"], data(clips(), "audio-classification"), reads)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_tokens_are_dropped_and_where_a_text_begins_and_ends_never(kind: Any) -> None:
    reads = train_text_preprocessing(TEXTS, TokenizerSpec(train=kind, vocab_size=300, max_length=16))
    tokens, tokenizer = reads.prepare(TEXTS), reads.tokenizer
    drop = {"name": "token-dropout", "probability": 0.5, "mode": "delete"}
    dropped = seen(views([drop], data(TEXTS, "text-classification"), reads), tokens)
    assert ((dropped != NO_TOKEN).sum() < (tokens != NO_TOKEN).sum()).item()
    if kind == "wordpiece":
        assert (dropped[:, 0] == tokenizer.cls_token_id).all()
        assert ((dropped == tokenizer.sep_token_id).sum(dim=1) == 1).all()
        hidden = seen(views([{**drop, "mode": "mask"}], data(TEXTS, "text-classification"), reads), tokens)
        assert (hidden == tokenizer.mask_token_id).any()
    else:
        with pytest.raises(UnfitAugmentation, match="take the mode delete"):
            views(["token-dropout"], data(TEXTS, "text-classification"), reads)


def test_two_networks_see_the_same_where_they_read_one_stored_form() -> None:
    images = torch.rand(4, 1, 8, 8)
    made = views(["flip"], data(images, "image-classification"), PIXELS)
    check_same_views(made, images, student=PIXELS, teacher=PixelPreprocessing(mean=(0.1,), std=(0.2,)))

    spec = TokenizerSpec(train="wordpiece", vocab_size=300, max_length=16)
    ours, same = train_text_preprocessing(TEXTS, spec), train_text_preprocessing(TEXTS, spec)
    other = train_text_preprocessing(TEXTS, spec.model_copy(update={"train": "bpe"}))
    made = views(["token-dropout"], data(TEXTS, "text-classification"), ours)
    check_same_views(made, TEXTS, student=ours, teacher=same)
    with pytest.raises(UnfitAugmentation, match="the teacher reads other tokens"):
        check_same_views(made, TEXTS, student=ours, teacher=other)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (WaveformFeatures(name="waveform", sample_rate=8_000), "clips of another rate or length"),
        (WaveformFeatures(name="waveform"), "specaugment is to hide the same"),
        (LogMelFeatures(mels=24), r"shape \(1, 23, 16\) and \(1, 23, 24\)"),
        (LogMelFeatures(mels=16), None),
    ],
)
def test_networks_of_sound_need_one_rate_and_for_masks_one_shape(teacher: Any, words: str | None) -> None:
    reads, theirs = (measure_sound(clips(), each, most_seconds=1) for each in (LogMelFeatures(mels=16), teacher))
    made = views(["gain", "specaugment"], data(clips(), "audio-classification"), reads)
    if words is None:
        check_same_views(made, clips(), student=reads, teacher=theirs)
    else:
        with pytest.raises(UnfitAugmentation, match=words):
            check_same_views(made, clips(), student=reads, teacher=theirs)
