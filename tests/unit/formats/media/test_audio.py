"""Sound files as people have them, and those that are broken, lie, or are of another kind."""

import struct

import numpy as np
import pytest

from service.errors import InvalidFile
from service.formats.media.audio import MAX_SECONDS, AudioExtent, check_audio, decode_audio
from tests.unit.formats.sounds import some_sound, sound_file

SOUND = some_sound()


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidFile) as caught:
        decode_audio(data, place="column 'audio', row 7")
    assert caught.value.detail.startswith("column 'audio', row 7 ")
    return caught.value.detail


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 2**-6),
        ("WAV", "PCM_16", 2**-14),
        ("WAV", "PCM_24", 2**-22),
        ("WAV", "PCM_32", 2**-22),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 2**-5),
        ("WAV", "ALAW", 2**-5),
        ("WAVEX", "PCM_16", 2**-14),
        ("FLAC", "PCM_S8", 2**-6),
        ("FLAC", "PCM_16", 2**-14),
        ("FLAC", "PCM_24", 2**-22),
    ],
)
def test_every_depth_gives_the_same_sound(kind: str, subtype: str, error: float) -> None:
    decoded = decode_audio(sound_file(SOUND, kind=kind, subtype=subtype), place="a")
    assert decoded.rate == 8_000
    assert decoded.samples.dtype == np.float32
    np.testing.assert_allclose(decoded.samples, SOUND, atol=error, rtol=0)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(channels: int) -> None:
    sound = some_sound(channels=channels)
    decoded = decode_audio(sound_file(sound, subtype="FLOAT"), place="a")
    np.testing.assert_allclose(decoded.samples, sound.mean(axis=1), atol=1e-6)


def test_a_sound_that_takes_several_blocks_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.formats.media.audio._VALUES_AT_ONCE", 300)
    sound = some_sound(1_000, channels=2)
    decoded = decode_audio(sound_file(sound, subtype="FLOAT"), place="a")
    np.testing.assert_allclose(decoded.samples, sound.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_that_was_written_into_a_pipe_does_not_know_its_size(size: int) -> None:
    data = bytearray(sound_file(SOUND))
    data[40:44] = struct.pack("<I", size or 0xFFFFFFFF)
    data[4:8] = struct.pack("<I", size)
    assert len(decode_audio(bytes(data), place="a").samples) == len(SOUND)


def test_a_little_beyond_full_scale_is_cut_there() -> None:
    sound = np.array([0.5, 1.01, -1.2, 0.1], np.float32)
    decoded = decode_audio(sound_file(sound, subtype="FLOAT"), place="a")
    np.testing.assert_array_equal(decoded.samples, np.array([0.5, 1, -1, 0.1], np.float32))


# ---------------------------------------------------------------- refused


WAV, FLAC = sound_file(SOUND), sound_file(SOUND, kind="FLAC")
with_nan = SOUND.copy()
with_nan[80] = np.nan
as_integers = SOUND * 2**15


def with_rate(rate: int) -> bytes:
    data = bytearray(WAV)
    data[24:28] = struct.pack("<I", rate)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"RIFF", "neither a WAV nor a FLAC"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "neither a WAV nor a FLAC; save it as 16-bit WAV or as FLAC"),
        (sound_file(SOUND, kind="OGG", subtype="VORBIS"), "is Ogg (Vorbis or Opus), which is not read; save it as"),
        (sound_file(SOUND, kind="MP3", subtype="MPEG_LAYER_III"), "is MP3 or AAC"),
        (b"ID3\x04" + bytes(50), "is MP3, which"),
        (sound_file(SOUND, kind="AIFF"), "is AIFF"),
        (sound_file(SOUND, kind="RF64"), "is RF64"),
        (sound_file(SOUND, kind="W64"), "is W64"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(50), "is MP4 or M4A"),
        (sound_file(SOUND, subtype="IMA_ADPCM"), "compressed as IMA ADPCM, which is not read"),
        (WAV[:30], "broken WAV or FLAC"),
        (WAV[:-7], "cut off: 1,593 of its 1,600 bytes of samples are there"),
        (WAV[:44], "cut off: 0 of"),
        (FLAC[:20], "broken WAV or FLAC"),
        (FLAC[:-7], "broken WAV or FLAC: flac decoder lost sync"),
        (sound_file(SOUND[:0]), "holds no sound; remove it"),
        (sound_file(with_nan, subtype="FLOAT"), "NaN or an infinite number at 0.010 s"),
        (sound_file(np.full(9, np.inf, np.float32), subtype="DOUBLE"), "NaN or an infinite number at 0.000 s"),
        (sound_file(as_integers, subtype="FLOAT"), "scale the samples to -1 to 1"),
        (with_rate(500), "has 500 samples a second; there may be 1,000 to 384,000: resample it"),
        (with_rate(500_000), "has 500,000 samples a second"),
        (
            sound_file(np.zeros(MAX_SECONDS * 1_000 + 1, np.float32), rate=1_000, kind="FLAC"),
            "is 1,800 s long, 1,800,001 samples",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_a_header_that_declares_hours_is_not_believed() -> None:
    data = bytearray(FLAC)
    data[21] |= 0x0F  # the four highest of the 36 bits of FLAC's number of samples
    assert "at most 1,800 s" in refusal(bytes(data))


@pytest.mark.parametrize("whole", [WAV, FLAC, sound_file(some_sound(channels=2), subtype="FLOAT")])
def test_a_damaged_file_is_refused_or_read_and_nothing_else_ever_happens(whole: bytes) -> None:
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 13)]
    for _ in range(200):
        flipped = bytearray(whole)
        for place in random.integers(0, 80 if random.random() < 0.5 else len(whole), size=2):
            flipped[place] ^= int(random.integers(1, 256))
        damaged.append(bytes(flipped))
    refused = 0
    for data in damaged:
        try:
            decoded = decode_audio(data, place="a")
        except InvalidFile:
            refused += 1
        else:
            assert np.isfinite(decoded.samples).all()
            assert np.abs(decoded.samples).max() <= 1
    assert refused > len(damaged) / 4


def test_all_sound_together_may_be_too_much() -> None:
    extent = AudioExtent()
    clip = check_audio(WAV, place="a")
    extent.add(clip, max_unpacked_bytes=4_000)
    assert (extent.column().rates, extent.column().longest_seconds) == ([8_000], 0.1)
    with pytest.raises(InvalidFile, match="more than 4,000 bytes; send less"):
        extent.add(clip, max_unpacked_bytes=4_000)
