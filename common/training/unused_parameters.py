"""Parameters that a loss does not reach: the last norm of a backbone whose earlier maps alone are read, for example.

They get no gradient, for which distributed training would wait in vain at every step.
"""

import torch
from torch import nn

from common.models.eval_mode import eval_mode


def freeze_unused(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
    """Keep what the loss of model(**batch) does not read out of training: no gradient, no optimizer state, no decay.

    batch: of one or two samples that have every target; to be called before the optimizer and DDP are made.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with eval_mode(model):  # BatchNorm and random states stay as they are
        loss, _ = model(**{name: value.to(trained[0].device) for name, value in batch.items()})
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients):
        parameter.requires_grad_(gradient is not None)
