"""Tower and projector trained to predict the words of each image, patch by patch, without the language model.

pixels (B, 3, H, W) -> tower -> projector -> patches (B, N, D) -> logits over the word embeddings (B, N, T)
  -> soft maximum over patches -> which tokens occur in the texts of each image (B, T)

A language model on top of a projector, or a tower, with random weights learns which words are frequent, and then hardly
uses the image. Here each patch predicts the words for what it shows, in the language model's own word embeddings, and
the patch with the highest logit counts: multiple-instance learning, as in Fang et al. 2015 (arXiv 1411.4952). A step
costs as much as one of a classifier.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from common.samples.word_pretraining import minimize

EPSILON = 1e-3  # lowest share of images with a token that its bias begins at


def align_with_words(
    model: Any,
    pixels_of: Callable[[torch.Tensor], torch.Tensor],
    texts: Sequence[Iterable[int]],
    parameters: Sequence[nn.Parameter],
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
) -> tuple[float, float]:
    """Train `parameters` of a LLaVA in place -> loss at the beginning and at the end: binary cross-entropy, summed over
    the tokens of all texts.

    pixels_of: numbers of images (B,) -> their pixels, augmented or not. texts: token ids of each image's texts.
    """
    bags = [set(ids) for ids in texts]
    vocabulary = sorted(set().union(*bags))
    targets = torch.tensor([[float(token in bag) for token in vocabulary] for bag in bags])  # (N, T)
    bias = nn.Parameter(torch.logit(targets.mean(0), eps=EPSILON))  # (T,)
    words = model.get_input_embeddings()

    def loss() -> torch.Tensor:
        rows = torch.randperm(len(targets))[:batch_size]
        patches = torch.stack(list(model.model.get_image_features(pixels_of(rows)).pooler_output))  # (B, N, D)
        logits = (patches @ words.weight[vocabulary].T).logsumexp(1) - math.log(patches.shape[1]) + bias  # (B, T)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets[rows]) * len(vocabulary)

    model.train()
    return minimize(loss, [*parameters, bias], steps, learning_rate, "words of images", warmup=0.05)


@torch.no_grad()
def project_onto_words(model: Any, pixels: torch.Tensor, token_ids: Iterable[int]) -> None:
    """Change the projector's last layer, so that patches of align_with_words lie among the word embeddings.

    pixels (N, 3, H, W): some images, for the mean patch. token_ids: of words. With the words' mean m and covariance C:

        patch' = m + a C (patch - mean patch),   a: as far from m as words are

    Patches of align_with_words tell words apart by their products with them, and a language model has seen nothing like
    them. Times the covariance, such a direction becomes that of the words which it stands for (Haufe et al. 2014,
    doi:10.1016/j.neuroimage.2013.10.067); to first order it is the mean of the words, weighted by a softmax.
    """
    words = model.get_input_embeddings().weight[sorted(set(token_ids))]
    centred = words - words.mean(0)
    patches = torch.cat(list(model.model.get_image_features(pixels).pooler_output))  # (N * P, D)
    moved = (patches - patches.mean(0)) @ centred.T @ centred
    matrix = centred.T @ centred * (centred.square().sum(-1).mean() / moved.square().sum(-1).mean()).sqrt()  # (D, D)
    last = model.model.multi_modal_projector.linear_2
    last.weight.copy_(matrix @ last.weight)
    last.bias.copy_(matrix @ (last.bias - patches.mean(0)) + words.mean(0))
