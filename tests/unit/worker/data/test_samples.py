"""Batches: every sample once an epoch, in an order that is a function of seed and epoch alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from service.spec.augment import Augment, AugmentationSpec
from worker.data import Data, PixelPreprocessing, Split
from worker.data.augment.choose import epoch_views
from worker.data.epoch import count_batches, split_epoch
from worker.data.samples import Samples
from worker.data.tensors import only_tensor
from worker.distributed.rng import epoch_order
from worker.targets import Targets

CPU = torch.device("cpu")
AUGMENT: TypeAdapter[list[AugmentationSpec]] = TypeAdapter(Augment)


def test_an_epoch_has_every_sample_once_and_every_epoch_another_order() -> None:
    first, second = (epoch_order(100, seed=0, epoch=epoch) for epoch in (0, 1))

    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert first.tolist() != second.tolist()


def test_the_order_depends_on_nothing_but_seed_and_epoch() -> None:
    before = epoch_order(50, seed=1, epoch=2)
    torch.rand(10)

    assert torch.equal(epoch_order(50, seed=1, epoch=2), before)
    assert not torch.equal(epoch_order(50, seed=2, epoch=1), before)


def test_the_order_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    epoch_order(50, seed=1, epoch=2)

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (3, 1, [1, 1, 1])],
)
def test_no_single_sample_is_left_over(num_samples: int, batch_size: int, sizes: list[int]) -> None:
    batches = split_epoch(torch.arange(num_samples), batch_size=batch_size)

    assert [len(batch) for batch in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(num_samples))
    assert count_batches(num_samples, batch_size=batch_size) == len(batches)


def test_images_are_the_same_whether_mapped_once_or_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split(inputs=torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8), labels=torch.arange(20) % 4)
    preprocessing = PixelPreprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), rescale_factor=1 / 255)
    once = Samples.of(split, preprocessing, device=CPU)
    monkeypatch.setattr("worker.data.samples.PREPROCESS_ONCE_BYTES", 0)
    by_batch = Samples.of(split, preprocessing, device=CPU)
    indices = torch.tensor([3, 17, 0])

    assert once.preprocessing is None
    assert only_tensor(by_batch.inputs).dtype is torch.uint8
    assert torch.equal(only_tensor(once.batch(indices).inputs), only_tensor(by_batch.batch(indices).inputs))
    assert torch.equal(only_tensor(once.inputs_from(5, 7)), only_tensor(by_batch.inputs_from(5, 7)))


def augmented(augment: list[Any]) -> tuple[Split, Samples]:
    split = Split(inputs=torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8), labels=torch.arange(20) % 4)
    reads = PixelPreprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), rescale_factor=1 / 255)
    data = Data("image-classification", {"train": split}, Targets.of_classes(list("abcd")), max_value=255)
    views = epoch_views(AUGMENT.validate_python(augment), data=data, preprocessing=reads, seed=1)
    return split, Samples.of(split, reads, device=CPU, views=views)


def test_an_augmented_batch_is_the_epochs_view_behind_the_preprocessing() -> None:
    split, samples = augmented([{"name": "flip", "probability": 1.0}])
    indices = torch.tensor([3, 17, 0])
    batch = samples.batch(indices, epoch=2)
    flipped = split.inputs[indices].flip(3)

    assert batch.stored_view is not None
    assert torch.equal(batch.stored_view, flipped)
    assert samples.preprocessing is not None
    assert torch.equal(only_tensor(batch.inputs), only_tensor(samples.preprocessing(flipped)))
    assert batch.labels.tolist() == [3, 1, 0]
    assert batch.mixture is None


def test_a_view_follows_from_epoch_and_sample_whatever_the_batch() -> None:
    _, samples = augmented(["crop", "cutmix"])
    whole = samples.batch(torch.arange(20), epoch=4)
    part = samples.batch(torch.tensor([11, 2]), epoch=4)

    assert torch.equal(only_tensor(whole.inputs)[[11, 2]], only_tensor(part.inputs))
    assert not torch.equal(only_tensor(samples.batch(torch.arange(20), epoch=5).inputs), only_tensor(whole.inputs))


def test_a_mixture_carries_its_partners_labels_weights_and_shares() -> None:
    split, samples = augmented(["mixup"])
    samples = replace(samples, weights=torch.arange(20.0))
    indices = torch.arange(20)
    batch = samples.batch(indices, epoch=1)

    assert samples.views is not None
    view = samples.views.stored(lambda places: split.inputs[places], indices, epoch=1)
    assert batch.mixture is not None
    assert view.partners is not None
    assert torch.equal(batch.mixture.partner_labels, split.labels[view.partners])
    assert batch.mixture.partner_weights is not None
    assert torch.equal(batch.mixture.partner_weights, view.partners.float())
    assert batch.weights is not None
    assert torch.equal(batch.weights, indices.float())
    assert view.shares is not None
    assert torch.equal(batch.mixture.shares, view.shares)


def test_another_network_reads_the_very_view_behind_its_own_preprocessing() -> None:
    _, samples = augmented(["crop", "colour"])
    batch = samples.batch(torch.tensor([5, 6]), epoch=3)
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    read = samples.view_for(batch, PixelPreprocessing(mean=mean, std=std))

    assert batch.stored_view is not None
    by_hand = [(batch.stored_view[:, channel] - mean[channel]) / std[channel] for channel in range(3)]
    torch.testing.assert_close(read, torch.stack(by_hand, dim=1))
    assert not torch.allclose(only_tensor(read), only_tensor(batch.inputs)), "its own, not that of the network which trains"
