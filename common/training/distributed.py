"""Values of all devices, with gradients, so that a loss is the same on 1, 2 or 4 of them.

DDP averages gradients over devices. A loss that compares samples with samples gathers all devices' vectors; the
gather's backward sums what every device's loss asks of a vector, and DDP's mean divides again.
"""

import torch
import torch.distributed


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """(B, ...) on each device -> (B * world, ...) on every device, in the order of their ranks."""
    if not _distributed():
        return tensor
    return _Gather.apply(tensor)


def global_mean(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """This device's sum over everybody's count, times the world size that DDP's mean divides by. 0 where none."""
    world = 1
    if _distributed():
        world = torch.distributed.get_world_size()
        count = count.detach().clone()
        torch.distributed.all_reduce(count)
    return total * world / count.clamp(min=1)


def rank() -> int:
    """This device's number, 0 where there is one only."""
    return torch.distributed.get_rank() if _distributed() else 0


def replicated_mean(value: torch.Tensor) -> torch.Tensor:
    """A scalar with the gradient of this device's value and the number of all devices' mean.

    What is logged, and what decides to stop, is then equal everywhere.
    """
    if not _distributed():
        return value
    mean = value.detach().clone()
    torch.distributed.all_reduce(mean)
    return value + (mean / torch.distributed.get_world_size() - value).detach()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
