"""The batches of an epoch with and without transfer rows: whole passes, shares, and the numbers that steps are counted by."""

import pytest
import torch
from torch import Tensor

from service.spec.training import TrainingSpec
from worker.data.epoch import TransferRows, count_steps, epoch_batches, samples_per_epoch, steps_per_epoch
from worker.distributed.rng import epoch_order


def order(num_samples: int, stream: int, *, epoch: int = 0) -> Tensor:
    return epoch_order(num_samples, seed=1, epoch=epoch, stream=stream)


@pytest.mark.parametrize("num_own", [1, 2, 7, 12, 13, 40])
@pytest.mark.parametrize("count", [1, 5, 30])
@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("lead", [False, True])
def test_an_epoch_passes_once_over_the_leading_rows_and_every_batch_has_its_share(
    num_own: int, count: int, fraction: float, lead: bool
) -> None:
    transfer = TransferRows(count, fraction, lead=lead)
    batches = epoch_batches(num_own + count, batch_size=8, order=order, transfer=transfer)

    own = torch.cat([batch[batch < num_own] for batch in batches]).tolist()
    others = torch.cat([batch[batch >= num_own] for batch in batches]).tolist()
    leading, drawn, expected = (others, own, range(num_own, num_own + count)) if lead else (own, others, range(num_own))
    assert sorted(leading) == list(expected)
    # As many passes over the other rows as their share takes, each whole before the next begins.
    size = num_own if lead else count
    passes = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    assert all(len(set(each)) == len(each) for each in passes)
    share = min(max(1, round(8 * fraction)), 7)
    for batch in batches[:-1]:
        assert (int((batch >= num_own).sum()), len(batch)) == (share, 8)
    assert all((batch >= num_own).any() and (batch < num_own).any() for batch in batches)
    assert sum(map(len, batches)) == samples_per_epoch(num_own + count, batch_size=8, transfer=transfer)
    spec = TrainingSpec(epochs=3, batch_size=8)
    assert steps_per_epoch(spec, num_own + count, transfer) == len(batches)
    assert count_steps(spec, num_own + count, transfer) == 3 * len(batches)


def test_transfer_rows_are_drawn_by_seed_and_epoch() -> None:
    transfer = TransferRows(100, 0.5)

    def drawn(epoch: int) -> list[int]:
        batches = epoch_batches(
            120, batch_size=8, order=lambda count, stream: order(count, stream, epoch=epoch), transfer=transfer
        )
        return [int(index) for batch in batches for index in batch if index >= 20]

    assert drawn(0) == drawn(0)
    assert set(drawn(0)) != set(drawn(1))


def test_without_transfer_rows_the_batches_are_those_of_a_pass() -> None:
    batches = epoch_batches(21, batch_size=8, order=order)

    assert torch.equal(torch.cat(batches), epoch_order(21, seed=1, epoch=0))
    assert [len(batch) for batch in batches] == [8, 8, 5]
    assert samples_per_epoch(21, batch_size=8) == 21
