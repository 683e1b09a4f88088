"""How does an image network from scratch learn to see before a language model listens to it?

images -> vectors (B, D) -> linear -> which words are said of each? (B, words)

Published vision-language models begin with towers that have seen many captions. Beside one with random weights a
language model first learns which words are frequent, and then hardly looks. Words as targets: Joulin et al. 2016, arXiv
1511.02251.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from tqdm import trange


def pretrain_on_words(
    see: Callable[[torch.Tensor], torch.Tensor],
    learning: Iterable[nn.Parameter],
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[float, float]:
    """Train `learning` in place -> loss at the beginning and at the end (a tenth of the steps each).

    see: numbers of images (B,) -> vectors (B, D), with gradient. texts: what is said of each image. The loss is the
    binary cross-entropy, in nats, summed over the words.
    """
    bags = [set(re.findall(r"\w+", text.lower())) for text in texts]
    words = sorted(set().union(*bags))
    targets = torch.tensor([[float(word in bag) for word in words] for bag in bags])  # (N, words)
    first = see(torch.zeros(1, dtype=torch.long))
    head = nn.Sequential(nn.LayerNorm(first.shape[1]), nn.Linear(first.shape[1], len(words))).to(first.device)
    batches = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(bags), (batch_size,), generator=batches)
        told = targets[rows].to(first.device)
        return nn.functional.binary_cross_entropy_with_logits(head(see(rows)), told, reduction="sum") / batch_size

    return descend(loss, [*learning, *head.parameters()], steps, learning_rate, "words of images", quiet)


def descend(
    loss: Callable[[], torch.Tensor],
    learning: Sequence[nn.Parameter],
    steps: int,
    learning_rate: float,
    what: str,
    quiet: bool = False,
) -> tuple[float, float]:
    """AdamW over one cycle of rates, a new `loss()` for each step -> its mean over the first and last tenth of them."""
    optimizer = torch.optim.AdamW(learning, learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in trange(steps, desc=what, leave=False, disable=quiet or None):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    part = max(1, steps // 10)
    return sum(losses[:part]) / part, sum(losses[-part:]) / part
