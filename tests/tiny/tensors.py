"""Random tensors in double precision."""

import torch


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)
