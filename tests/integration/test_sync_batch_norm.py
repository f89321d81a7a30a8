"""Batch norm of two processes' shares against batch norm of the whole batch, in float64."""

from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worker.distributed.group import join
from worker.host.fork_server import context, warm_up

MAPS, SLOPES = (torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
CPU = torch.device("cpu")


def norm() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, -2.0, 3.0]))
        made.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    return made


def passed(network: nn.Module, inputs: Tensor, slopes: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients and the state that is left, after one pass to and fro."""
    inputs = inputs.clone().requires_grad_()
    outputs = network(inputs)
    outputs.backward(slopes)
    assert inputs.grad is not None
    of_weights = {f"gradient of {name}": weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return {"outputs": outputs.detach(), "gradient": inputs.grad, **of_weights, **network.state_dict()}


def rank(pipe: Connection, index: int, rendezvous: Path, num_samples: int) -> None:
    torch.set_num_threads(1)
    ranks = join(rendezvous, rank=index, world_size=2, device=CPU)
    own = ranks.shard(torch.arange(num_samples))
    network = ranks.convert_sync_batchnorm(nn.Sequential(norm()))
    slopes = torch.zeros_like(SLOPES[own]) if ranks.has_empty_shard else SLOPES[own]
    pipe.send({name: tensor.tolist() for name, tensor in passed(network, MAPS[own], slopes).items()})


@pytest.mark.parametrize("num_samples", [5, 1], ids=["shares of three and two", "nothing left for the second"])
def test_two_shares_are_normalised_as_one_batch(num_samples: int, tmp_path: Path) -> None:
    warm_up()
    pipes, processes = [], []
    for index in range(2):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=rank, args=(theirs, index, tmp_path / "rendezvous", num_samples)))
        processes[-1].start()
        pipes.append(ours)
    first, second = ({name: torch.tensor(value).double() for name, value in pipe.recv().items()} for pipe in pipes)
    for process in processes:
        process.join()

    whole = passed(nn.Sequential(norm()), MAPS[:num_samples], SLOPES[:num_samples])
    assert whole.keys() == first.keys() == second.keys()
    for name, wanted in whole.items():
        if name in ("outputs", "gradient"):
            stood_in = num_samples == 1
            found = first[name] if stood_in else torch.cat([first[name], second[name]])
            assert not (stood_in and name == "gradient" and second[name].any())
        elif name.startswith("gradient"):
            found = first[name] + second[name]
        else:
            found = first[name]
            assert torch.equal(first[name], second[name]), name
        assert torch.allclose(found, wanted.double(), rtol=1e-6, atol=1e-6), name
