"""What networks cost to run: every size of batches, operations and bytes as they can be counted by hand."""

import pytest
import torch
from torch import nn

from worker.evaluation.speed import ALWAYS, Subject, batch_sizes, measure_speed


class Counted(nn.Module):
    """A linear layer, which notes the sizes of its batches."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear, self.sizes = nn.Linear(8, width, bias=False), list[int]()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        outputs: torch.Tensor = self.linear(inputs)
        return outputs


def test_each_network_is_timed_with_each_batch_whatever_the_number_of_samples() -> None:
    networks = {"teacher": Counted(), "student": Counted(2)}
    subjects = {name: Subject(network, torch.randn(5, 8)) for name, network in networks.items()}
    cards = measure_speed(subjects, batches=batch_sizes(300), seconds=5.0)
    for name, card in cards.items():
        assert [each.batch for each in card.batches] == [1, 8, 64, 256]
        assert set(networks[name].sizes) == {1, 8, 64, 256}
        assert all(0 < each.p50_ms <= each.p95_ms for each in card.batches)
        assert card.of(card.best_batch).samples_per_second == max(each.samples_per_second for each in card.batches)
    assert cards["teacher"].flops == 2 * 8 * 4
    assert cards["teacher"].weight_bytes == 8 * 4 * 4
    assert cards["teacher"].peak_bytes == 8 * 4 * 4 + 4 * (8 + 4), "weights, one input and its output"
    whole = cards["student"].best_batch * 4 * (8 + 2)
    assert cards["student"].peak_bytes_best_batch == 8 * 2 * 4 + whole


def test_no_time_is_three_passes_of_each_batch() -> None:
    (card,) = measure_speed({"student": Subject(Counted(), torch.randn(5, 8))}, batches=ALWAYS, seconds=1e-9).values()
    assert [each.rounds for each in card.batches] == [3, 3]


def test_a_batch_that_does_not_fit_into_memory_is_left_out_where_it_is_a_further_one() -> None:
    class Small(Counted):
        most = 64

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if len(inputs) > self.most:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(inputs)

    network = Small()
    (card,) = measure_speed({"student": Subject(network, torch.randn(5, 8))}, batches=batch_sizes(300), seconds=1.0).values()
    assert [each.batch for each in card.batches] == [1, 8, 64]
    network.most = 32
    with pytest.raises(torch.OutOfMemoryError):
        measure_speed({"student": Subject(network, torch.randn(5, 8))}, batches=batch_sizes(300), seconds=1.0)


def test_inputs_by_name_are_repeated_alike_and_integer_weights_have_no_count_of_operations() -> None:
    class Sum(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            assert {len(each) for each in inputs.values()} in ({1}, {64})
            return inputs["first"] + inputs["second"]

    inputs = {"first": torch.randn(5, 2), "second": torch.randn(5, 2)}
    (card,) = measure_speed({"s": Subject(Sum(), inputs, has_integer_weights=True)}, batches=ALWAYS, seconds=1.0).values()
    assert card.flops is None
