"""Moving average of a model's weights, which is what a run with ema_decay validates and saves."""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def average_model(model: nn.Module, decay: float) -> AveragedModel:
    """A frozen copy of the model; update_parameters(model) moves it by the share 1 - decay."""
    return AveragedModel(model, multi_avg_fn=partial(_update_average, decay), use_buffers=True).requires_grad_(False)


def _update_average(decay: float, average: list[torch.Tensor], now: list[torch.Tensor], _: Any) -> None:
    """torch's own interpolates by start + share * (end - start), which makes NaN of the infinities in a mask buffer."""
    if average[0].is_floating_point():  # torch passes one dtype at a time
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, now, alpha=1 - decay)
    else:  # a count, as of batch normalisation
        torch._foreach_copy_(average, now)
