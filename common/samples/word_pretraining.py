"""Pretraining of small image networks on the words of captions, for vision-language models from scratch.

images -> vectors (B, D) -> linear -> which words occur in the text of each (B, words)

Published vision-language models begin with towers that were pretrained on many captions. On top of one with random
weights a language model learns which words are frequent, and then hardly uses the image. Words as targets: Joulin et
al. 2016, arXiv 1511.02251.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from common.cli.progress_bar import progress_bar


def pretrain_on_words(
    encode: Callable[[torch.Tensor], torch.Tensor],
    parameters: Iterable[nn.Parameter],
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[float, float]:
    """Train `parameters` in place -> loss at the beginning and at the end (mean over a tenth of the steps each).

    encode: indices of images (B,) -> vectors (B, D), with gradient. texts: one for each image. The loss is the binary
    cross-entropy, in nats, summed over the words.
    """
    bags = [set(re.findall(r"\w+", text.lower())) for text in texts]
    words = sorted(set().union(*bags))
    targets = torch.tensor([[float(word in bag) for word in words] for bag in bags])  # (N, words)
    example = encode(torch.zeros(1, dtype=torch.long))
    head = nn.Sequential(nn.LayerNorm(example.shape[1]), nn.Linear(example.shape[1], len(words))).to(example.device)
    batches = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(bags), (batch_size,), generator=batches)
        logits, target = head(encode(rows)), targets[rows].to(example.device)
        return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum") / batch_size

    return minimize(loss, [*parameters, *head.parameters()], steps, learning_rate, "words of images", quiet)


def minimize(
    loss: Callable[[], torch.Tensor],
    parameters: Sequence[nn.Parameter],
    steps: int,
    learning_rate: float,
    description: str,
    quiet: bool = False,
    warmup: float = 0.1,
) -> tuple[float, float]:
    """AdamW over one cycle of learning rates, with a new `loss()` for each step -> its mean over the first and the last
    tenth of the steps. warmup: share of the steps."""
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=warmup)
    losses = []
    for _ in progress_bar(range(steps), desc=description, quiet=quiet):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    part = max(1, steps // 10)
    return sum(losses[:part]) / part, sum(losses[-part:]) / part
