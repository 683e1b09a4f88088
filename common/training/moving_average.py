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
        share = torch.where(skip, 0.0, torch.where(is_first, 1.0, 1 - self.decay))
        for average, weight in zip(self.module.parameters(), model.parameters()):
            average.lerp_(weight, share.to(average.dtype))  # exact for shares of 0 and 1

        pairs = list(zip(self.module.buffers(), model.buffers()))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        copy_where(~skip & is_first, *unzip(pairs))
        copy_where(~skip, *unzip([pair for pair in pairs if not pair[0].is_floating_point()]))  # counts, as of batches
        averages, buffers = unzip(floats)
        if floats:
            blended = list(torch._foreach_mul(averages, self.decay))
            torch._foreach_add_(blended, buffers, alpha=1 - self.decay)
            copy_where(~skip & ~is_first, averages, blended)
        self.n_averaged += ~skip


def unzip(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
