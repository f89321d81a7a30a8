"""A view is a function of (seed, epoch, sample) alone, for every augmentation and several together."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from service.spec.augment import AUGMENTATIONS, Augment, AugmentationSpec
from worker.data.augment import Augmentation, Stored, View, Vocabulary

AUGMENT: TypeAdapter[list[AugmentationSpec]] = TypeAdapter(Augment)
NUM_SAMPLES = 40
MANY = ["crop", "flip", {"name": "cutout", "size": 3}, "colour", "affine", "cutmix"]


def inputs(modality: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """A training split of each modality; no size is a multiple of a vector unit's."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"image": (3, 9, 7), "waveform": (131,), "log-mel": (13, 11), "text": (17,)}
    numbers = torch.randint(1, 256, (NUM_SAMPLES, *shapes[modality]), generator=generator)
    return numbers if modality == "text" else numbers.to(dtype)


def view(augment: list[Any], split: Tensor, indices: Tensor, *, seed: int = 0, epoch: int = 0) -> View:
    stored = Stored(vocabulary=Vocabulary(pad=0, mask=1))
    augmentation = Augmentation(AUGMENT.validate_python(augment), num_samples=len(split), stored=stored)
    return augmentation(lambda places: split.index_select(0, places), indices, seed=seed, epoch=epoch)


CASES = [
    pytest.param([name], modality, torch.float32, id=f"{name} {modality}")
    for name, page in AUGMENTATIONS.items()
    for modality in page.modalities
] + [pytest.param(MANY, "image", dtype, id=f"many {dtype}") for dtype in (torch.uint8, torch.float32)]


@pytest.mark.parametrize(("augment", "modality", "dtype"), CASES)
def test_a_view_is_the_same_in_every_batch_bit_for_bit(augment: list[Any], modality: str, dtype: torch.dtype) -> None:
    split, everyone = inputs(modality, dtype), torch.arange(NUM_SAMPLES)
    whole = view(augment, split, everyone, seed=3, epoch=5)
    assert whole.inputs.shape == split.shape
    backwards = view(augment, split, everyone.flip(0), seed=3, epoch=5)
    assert torch.equal(backwards.inputs.flip(0), whole.inputs)
    for size in (1, 7):
        pieces = [view(augment, split, piece, seed=3, epoch=5) for piece in torch.split(everyone, size)]
        assert torch.equal(torch.cat([piece.inputs for piece in pieces]), whole.inputs)
        if whole.partners is not None and whole.shares is not None:
            assert torch.equal(torch.cat([piece.partners for piece in pieces if piece.partners is not None]), whole.partners)
            assert torch.equal(torch.cat([piece.shares for piece in pieces if piece.shares is not None]), whole.shares)


@pytest.mark.parametrize(("augment", "modality", "dtype"), CASES)
def test_every_epoch_and_every_seed_has_other_views(augment: list[Any], modality: str, dtype: torch.dtype) -> None:
    split, everyone = inputs(modality, dtype), torch.arange(NUM_SAMPLES)
    here, later, elsewhere = (
        view(augment, split, everyone, seed=seed, epoch=epoch).inputs for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    for other in (later, elsewhere):
        changed = (here != other).flatten(1).any(dim=1).float().mean()
        assert changed > 0.3


@pytest.mark.parametrize(("augment", "modality", "dtype"), CASES)
def test_the_stored_samples_stay_as_they_are(augment: list[Any], modality: str, dtype: torch.dtype) -> None:
    split = inputs(modality, dtype)
    before = split.clone()
    augmentation = Augmentation(AUGMENT.validate_python(augment), len(split), Stored(vocabulary=Vocabulary(0, 1)))
    augmentation(lambda places: split[: len(places)], torch.arange(5), seed=0, epoch=0)
    assert torch.equal(split, before)


def test_an_operation_behind_another_leaves_the_first_ones_numbers_alone() -> None:
    split, everyone = inputs("image"), torch.arange(NUM_SAMPLES)
    cropped = view(["crop"], split, everyone).inputs
    flipped = view(["crop", {"name": "flip", "probability": 1.0}], split, everyone).inputs
    assert torch.equal(flipped, cropped.flip(3))


def test_two_operations_of_one_kind_draw_numbers_of_their_own() -> None:
    split, everyone = inputs("waveform"), torch.arange(NUM_SAMPLES)
    once, twice = (view(["gain"] * count, split, everyone).inputs / split for count in (1, 2))
    assert not torch.allclose(once.square(), twice, rtol=1e-2)


def test_a_partner_is_seen_as_it_is_itself_up_to_the_mixture() -> None:
    split, everyone = inputs("image"), torch.arange(NUM_SAMPLES)
    mixed = view(["crop", "flip", "mixup"], split, everyone, epoch=2)
    assert mixed.partners is not None
    assert mixed.shares is not None
    before = view(["crop", "flip"], split, everyone, epoch=2).inputs
    weights = mixed.shares.view(-1, 1, 1, 1)
    torch.testing.assert_close(mixed.inputs, weights * before + (1 - weights) * before[mixed.partners])


def test_partners_come_from_the_whole_training_split() -> None:
    split = inputs("image")[:5]
    partners = view(["mixup"], split, torch.arange(5).repeat(2)).partners
    assert partners is not None
    assert torch.equal(partners[:5], partners[5:])
    everywhere = torch.cat([_partners(split, epoch) for epoch in range(400)])
    assert all(300 < count < 500 for count in everywhere.bincount(minlength=5).tolist())


def test_without_augmentations_the_view_is_the_sample() -> None:
    split = inputs("image")
    seen = view([], split, torch.tensor([4, 2]))
    assert torch.equal(seen.inputs, split[[4, 2]])
    assert seen.partners is None
    assert seen.shares is None


def test_no_global_generator_is_read_or_moved() -> None:
    state = torch.get_rng_state()
    view(MANY, inputs("image"), torch.arange(9))
    assert torch.equal(torch.get_rng_state(), state)


def _partners(split: Tensor, epoch: int) -> Tensor:
    partners = view(["mixup"], split, torch.arange(len(split)), epoch=epoch).partners
    assert partners is not None
    return partners
