"""Texts, words and waveforms are told apart, and equal ones are equal."""

import numpy as np
import pytest

from service.formats import Waveform
from worker.data.raw_inputs import RawSample, num_characters, sample_bytes, sample_key

CLIP = Waveform(np.array([0.5, -0.25], dtype=np.float32), 8000)


@pytest.mark.parametrize(("sample", "count"), [("red green", 9), (["red", "green"], 8), (CLIP, 0)])
def test_characters_are_those_of_all_words(sample: RawSample, count: int) -> None:
    assert num_characters(sample) == count


def test_equal_samples_have_equal_keys_and_bytes_and_others_have_not() -> None:
    again = Waveform(CLIP.samples.copy(), CLIP.rate)
    assert sample_key(again) == sample_key(CLIP)
    assert sample_bytes(again) == sample_bytes(CLIP)
    samples: list[RawSample] = [CLIP, Waveform(CLIP.samples, 16000), "red green", ["red", "green"], ["red green"]]
    assert len({sample_key(each) for each in samples}) == len(samples)
    assert len({sample_bytes(each) for each in samples}) == len(samples)
