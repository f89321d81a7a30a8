"""Batches: every sample once an epoch, in an order that is a function of seed and epoch alone."""

import pytest
import torch

from worker.data import PixelPreprocessing, Split
from worker.randomness import epoch_order
from worker.samples import Samples, count_batches, split_epoch

CPU = torch.device("cpu")


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
    monkeypatch.setattr("worker.samples.PREPROCESS_ONCE_BYTES", 0)
    by_batch = Samples.of(split, preprocessing, device=CPU)
    indices = torch.tensor([3, 17, 0])

    assert once.preprocessing is None
    assert by_batch.inputs.dtype is torch.uint8
    assert torch.equal(once.batch(indices).inputs, by_batch.batch(indices).inputs)
    assert torch.equal(once.inputs_from(5, 7), by_batch.inputs_from(5, 7))


def test_the_teachers_outputs_come_with_their_samples() -> None:
    split = Split(inputs=torch.zeros(5, 1, 2, 2), labels=torch.arange(5))
    samples = Samples.of(split, PixelPreprocessing(mean=(0.0,), std=(1.0,)), device=CPU).with_teacher(
        torch.arange(10.0).reshape(5, 2)
    )

    batch = samples.batch(torch.tensor([4, 1]))

    assert batch.labels.tolist() == [4, 1]
    assert batch.teacher_outputs is not None
    assert batch.teacher_outputs.tolist() == [[8, 9], [2, 3]]
