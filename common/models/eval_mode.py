"""Context manager for evaluation within training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """The model in eval mode, afterwards in its earlier mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
