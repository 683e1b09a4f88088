"""An image network trained to predict the words of each image, patch by patch, without the language model.

images -> network -> logits of each patch over the words (B, N, W)
  -> each patch's probabilities of words, averaged over patches -> log likelihood of the words of the image's texts

A language model on top of a projector, or a tower, with random weights learns which words are frequent, and then hardly
uses the image. Here each patch says which words it shows, and together the patches of an image should have said all of
its words: a mixture of softmaxes, on the multi-label targets of Mahajan et al. 2018 (arXiv 1805.00932). A step costs as
much as one of a classifier.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import nn

from common.samples.word_pretraining import minimize


def word_targets(
    texts: Sequence[Iterable[Hashable]], vocabulary: Sequence[Hashable], rarity: float = 0.0
) -> torch.Tensor:
    """texts: the words of each image -> what it should say, (N, W): a word that n images have with a weight of
    n ** -rarity, 1 in all."""
    columns = {word: column for column, word in enumerate(vocabulary)}
    targets = torch.zeros(len(texts), len(vocabulary))
    for row, words in enumerate(texts):
        targets[row, [columns[word] for word in set(words)]] = 1
    targets = targets / targets.sum(0).clamp(min=1) ** rarity
    return targets / targets.sum(1, keepdim=True)


def align_with_words(
    patch_logits: Callable[[torch.Tensor], torch.Tensor],
    targets: torch.Tensor,
    parameters: Sequence[nn.Parameter],
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
) -> tuple[float, float]:
    """Train `parameters` in place -> loss at the beginning and at the end, in nats.

    patch_logits: numbers of images (B,) -> (B, N, W), with gradient. targets (images, W): of word_targets.
    """

    def loss() -> torch.Tensor:
        rows = torch.randperm(len(targets))[:batch_size]
        logits = patch_logits(rows)
        words = logits.float().log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])  # (B, W)
        return -(targets[rows].to(words.device) * words).sum(1).mean()

    return minimize(loss, parameters, steps, learning_rate, "words of images", warmup=0.05)
