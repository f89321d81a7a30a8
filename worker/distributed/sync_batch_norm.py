"""Synchronised batch norm: normalises each rank's shard by the statistics of the whole batch.

torch's own ``SyncBatchNorm`` refuses tensors on the CPU; this one computes the same on gloo, where it is tested, and on NCCL. Its
state_dict has the keys of the batch norm that it replaces. b a rank's shard, C channels, k ranks.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from worker.errors import JobFault


def convert_sync_batchnorm(network: nn.Module, *, has_empty_shard: Callable[[], bool]) -> nn.Module:
    """Replaces every batch norm of the network by :class:`SyncBatchNorm`, in place. Raises what
    :func:`check_no_layer_drop` raises."""
    check_no_layer_drop(network)
    for parent, name, norm in batch_norms(network):
        setattr(parent, name, SyncBatchNorm(norm, has_empty_shard=has_empty_shard))
    return network


def batch_norms(network: nn.Module) -> list[tuple[nn.Module, str, _BatchNorm]]:
    """Each batch norm of the network, with its parent module and its name there."""
    named = [(parent, name, part) for parent in network.modules() for name, part in parent.named_children()]
    return [(parent, name, part) for parent, name, part in named if isinstance(part, _BatchNorm)]


def check_no_layer_drop(network: nn.Module) -> None:
    """Checks that a network can be trained on several ranks.

    Raises:
        JobFault: the network has batch norm and drops layers at random. Ranks would drop different ones, and a collective of one
            rank would wait forever for the others.
    """
    configs = [config for module in network.modules() if (config := getattr(module, "config", None)) is not None]
    if batch_norms(network) and any(getattr(config, "layerdrop", 0.0) for config in configs):
        raise JobFault(
            "invalid_spec",
            "A network with batch norm that drops whole layers cannot be trained on several devices.",
            hint="Set layerdrop to 0 in the architecture's config, or ask for one device.",
            details={"pointer": "/resources"},
        )


class SyncBatchNorm(_BatchNorm):
    """``norm`` with the mean and the variance of all ranks' shards; the same as ``norm`` in ``eval()``."""

    def __init__(self, norm: _BatchNorm, *, has_empty_shard: Callable[[], bool]) -> None:
        """``has_empty_shard`` returns whether this rank's current inputs are a placeholder, left out of the statistics."""
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._has_empty_shard = has_empty_shard
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalises this rank's shard (b, C, …)."""
        if not self.training:
            return super().forward(input)
        is_counted = not self._has_empty_shard()
        mean, variance, total = _statistics(input.detach(), is_counted=is_counted)
        if self.track_running_stats:
            self._update_running_stats(mean, variance, total)
        normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean, variance, total, self.eps, is_counted
        )
        return normalised

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum: Any = self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.add_(momentum * (mean - self.running_mean))
        self.running_var.add_(momentum * (unbiased - self.running_var))

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any number of dimensions: the norms that the network was built with have checked theirs."""


class _Normalise(torch.autograd.Function):
    """Normalises (b, C, …) by the whole batch's mean and variance (C,), which depend on all ranks' inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        total: Tensor,
        epsilon: float,
        is_counted: bool,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, mean, (variance + epsilon).rsqrt(), total)
        ctx.is_counted = is_counted
        return functional.batch_norm(input, mean, variance, weight, bias, training=False, eps=epsilon)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        input, weight, mean, inverse, total = ctx.saved_tensors
        dims, shape = _all_but_channels(input), [1, -1, *[1] * (input.dim() - 2)]
        centred, grads = input.to(mean.dtype) - mean.view(shape), grad.to(mean.dtype)
        sums = torch.stack([grads.sum(dim=dims), (grads * centred).sum(dim=dims)])
        to_bias, to_weight = sums[0].clone(), sums[1] * inverse
        dist.all_reduce(sums)
        by_mean, by_variance = sums / total
        scale = inverse if weight is None else inverse * weight
        # scale · (grad − its mean − centred · mean(grad · centred) / variance)
        to_input = grads - by_mean.view(shape)
        to_input.addcmul_(centred, (inverse.square() * by_variance).view(shape), value=-1).mul_(scale.view(shape))
        if not ctx.is_counted:  # a placeholder has no part in the statistics
            to_input = torch.zeros_like(to_input)
        needs = ctx.needs_input_grad
        learned = (to_weight if needs[1] else None, to_bias if needs[2] else None)
        return to_input.to(input.dtype), *learned, None, None, None, None, None


@torch.no_grad()
def _statistics(input: Tensor, *, is_counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), variance (C,) and number (1,) of each channel's values over all ranks.

    Combined from each rank's own mean and variance (Chan, Golub, LeVeque, 1979), so that no digits are lost.
    """
    values = input.to(torch.promote_types(input.dtype, torch.float32))
    channels = values.shape[1]
    variance, mean = torch.var_mean(values, dim=_all_but_channels(values), correction=0)
    count = mean.new_full((1,), values.numel() / channels if is_counted else 0.0)
    own = torch.cat([mean, variance, count])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    means, variances, numbers = torch.split(torch.stack(every), [channels, channels, 1], dim=1)
    total = numbers.sum(dim=0)
    weights = numbers / total
    mean = (means * weights).sum(dim=0)
    return mean, ((variances + (means - mean).square()) * weights).sum(dim=0), total


def _all_but_channels(input: Tensor) -> list[int]:
    return [0, *range(2, input.dim())]
