"""Moving average of a model's weights, which is what a run with ema_decay validates and saves."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.training.nonfinite import copy_where


class MovingAverage(AveragedModel):
    """A frozen copy of the model, with the names of torch's AveragedModel.

    torch's own update waits for the device, and its interpolation, start + share * (end - start), makes NaN of the
    infinities in a mask buffer.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, skip: torch.Tensor) -> None:
        """Move the average by the share 1 - decay; the first time copy. skip: () bool on the device, change nothing."""
        is_first = self.n_averaged == 0
        keep = torch.where(skip, 1.0, torch.where(is_first, 0.0, self.decay))
        averages: list[torch.Tensor] = list(self.module.parameters())
        torch._foreach_mul_(averages, keep)
        moved = torch._foreach_mul(list[torch.Tensor](model.parameters()), 1 - keep)
        torch._foreach_add_(averages, list(moved))

        averages, buffers = list(self.module.buffers()), list(model.buffers())
        blended = [
            torch.add(average * self.decay, buffer, alpha=1 - self.decay) if buffer.is_floating_point() else buffer
            for average, buffer in zip(averages, buffers)
        ]
        copy_where(~skip & is_first, averages, buffers)
        copy_where(~skip & ~is_first, averages, blended)
        self.n_averaged += ~skip
