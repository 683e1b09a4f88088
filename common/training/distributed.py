"""Tensors of all devices with gradients, so that a loss is the same on 1, 2 or 4 of them.

DDP averages gradients over devices. A loss that compares samples with samples gathers all devices' vectors; the
backward of the gather sums the gradients that every device's loss gives a vector, and DDP's mean divides again.
"""

from typing import Any

import torch
import torch.distributed


def is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """This device's number; 0 where there is only one."""
    return torch.distributed.get_rank() if is_distributed() else 0


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """(B, ...) on each device -> (B * world, ...) on every device, in the order of their ranks."""
    return _Gather.apply(tensor) if is_distributed() else tensor


def global_mean(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """This device's sum over all devices' count, times the world size that DDP's mean divides by; 0 for no count."""
    world = 1
    if is_distributed():
        world = torch.distributed.get_world_size()
        count = count.detach().clone()
        torch.distributed.all_reduce(count)
    return total * world / count.clamp(min=1)


def replicated_mean(value: torch.Tensor) -> torch.Tensor:
    """A scalar with the gradient of this device's value and the number of all devices' mean.

    What is logged, and what decides to stop, is then equal everywhere.
    """
    if not is_distributed():
        return value
    mean = value.detach().clone()
    torch.distributed.all_reduce(mean)
    return value + (mean / torch.distributed.get_world_size() - value).detach()


class _Gather(torch.autograd.Function):
    """torch.distributed.nn.all_gather is deprecated, and its successor is not public."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[rank()]
