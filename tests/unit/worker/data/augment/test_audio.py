"""What each operation on waveforms and spectrograms does to them."""

import pytest
import torch

from service.spec.augment import Gain, Noise, SpecAugment, TimeShift
from tests.unit.worker.data.augment.draws import chosen, drawn
from worker.data.audio.waveform import clip_lengths
from worker.data.augment import Stored
from worker.data.augment.audio import gain, noise, specaugment, time_shift

STORED = Stored()


def test_gain_is_a_factor_in_decibels() -> None:
    batch = torch.randn(2, 50)
    louder = gain(Gain(name="gain", min_db=-20.0, max_db=20.0), batch, chosen([0.0], [0.75]), STORED)
    torch.testing.assert_close(louder[0], batch[0] / 10)
    torch.testing.assert_close(louder[1], batch[1] * 10**0.5)


def test_noise_stands_at_its_ratio_below_the_signal() -> None:
    batch = torch.sin(torch.arange(40_000) / 7).repeat(3, 1) * torch.tensor([[1.0], [0.01], [0.0]])
    added = noise(Noise(name="noise", min_snr_db=20.0, max_snr_db=20.0), batch, drawn(3), STORED) - batch
    powers = added.square().mean(dim=1)
    assert (batch[:2].square().mean(dim=1) / powers[:2]).tolist() == pytest.approx([100, 100], rel=0.03)
    assert powers[2] == 0
    # White and of the normal distribution.
    standard = added[0] / added[0].std()
    assert abs(standard.mean()) < 0.02
    assert (standard.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert (standard.abs() < 2).float().mean().item() == pytest.approx(0.9545, abs=0.005)
    assert abs((standard[1:] * standard[:-1]).mean()) < 0.02


def test_noise_ratios_are_drawn_from_their_range() -> None:
    batch = torch.ones(2, 4)
    draws = [[0.0, *[0.9] * 4], [0.9999999, *[0.9] * 4]]
    added = noise(Noise(name="noise", min_snr_db=0.0, max_snr_db=40.0), batch, chosen(*draws), STORED) - batch
    assert (added[0] / added[1]).tolist() == pytest.approx([100] * 4, rel=1e-3)


def test_a_shifted_waveform_is_earlier_or_later_with_silence_in_the_gap() -> None:
    batch = torch.arange(1.0, 11).repeat(3, 1)
    shifted = time_shift(TimeShift(name="time-shift", share=0.3), batch, chosen([0.0], [0.99], [0.5]), STORED)
    assert shifted.tolist() == [[4, 5, 6, 7, 8, 9, 10, 0, 0, 0], [0, 0, 0, 1, 2, 3, 4, 5, 6, 7], batch[2].tolist()]
    assert clip_lengths(shifted).tolist() == [7, 10, 10]


def test_specaugment_hides_stretches_of_time_and_bands_of_frequencies_behind_the_mean() -> None:
    batch = torch.rand(2, 10, 8)
    spec = SpecAugment(name="specaugment", time_masks=1, time_share=0.5, frequency_masks=2, frequency_share=0.25)
    # Lengths of 0 to 5 frames and 0 to 2 bands, then where they begin.
    draws = [[0.99, 0.99, 0.5, 0.0, 0.99, 0.99], [0.5, 0.0, 0.0, 0.5, 0.0, 0.5]]
    masked = specaugment(spec, batch, chosen(*draws), STORED)
    expected = batch.clone()
    expected[0, 5:] = expected[0, :, 0] = expected[0, :, 6:] = batch[0].mean()
    expected[1, :3] = batch[1].mean()
    torch.testing.assert_close(masked, expected)
    assert torch.equal(masked[1, 3:], batch[1, 3:])


def test_specaugment_without_masks_changes_nothing() -> None:
    batch = torch.rand(3, 10, 8)
    spec = SpecAugment(name="specaugment", time_masks=0, frequency_masks=0)
    assert torch.equal(specaugment(spec, batch, drawn(3), STORED), batch)


def test_no_mask_is_wider_than_its_share() -> None:
    batch = torch.arange(100.0).expand(500, 20, 100)  # the mean, 49.5, is no band's own value
    spec = SpecAugment(name="specaugment", time_masks=0, frequency_masks=1, frequency_share=0.1)
    hidden = (specaugment(spec, batch, drawn(500), STORED) != batch).any(dim=1)
    widths = hidden.sum(dim=1)
    assert set(widths.tolist()) == set(range(11))
    first = hidden.to(torch.int8).argmax(dim=1)[widths > 0]
    assert first.min() < 5
    assert (first + widths[widths > 0]).max() > 95
