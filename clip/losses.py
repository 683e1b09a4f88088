"""Contrastive losses between the images and the texts of a batch, over all devices.

images, texts (B, D) unit, on each of W devices -> gathered (W * B, D) with gradient -> loss of this device's rows

The other texts of a batch are negatives, unless they have the same words or belong to the same character: `positives`
marks all matching pairs; without it image i matches text i alone (the textbook loss).
"""

import torch
import torch.nn.functional as F

from common.training.distributed import gather_with_gradient, rank, replicated_mean


def positive_pairs(*ids: torch.Tensor) -> torch.Tensor:
    """ids: (B,) each, -1 = none; -> (B, W * B) True where a pair of this device shares an id with any pair.

    Every pair is its own positive.
    """
    gathered = [gather_with_gradient(own) for own in ids]
    positive = F.one_hot(_own_columns(ids[0]), len(gathered[0])).bool()
    for own, everyone in zip(ids, gathered):
        positive |= (own[:, None] == everyone[None]) & (own[:, None] >= 0)
    return positive


def _own_columns(rows: torch.Tensor) -> torch.Tensor:
    """Indices of this device's B rows in the W * B gathered ones."""
    return rank() * len(rows) + torch.arange(len(rows), device=rows.device)


def clip_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, positives: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of image-to-text and text-to-image cross-entropy (Radford et al. 2021, figure 3).

    scale: 1 / temperature. Several positives share the target equally (as in Yang et al. 2022, UniCL, with their mean
    in place of their sum, so that frequent captions do not weigh more).
    """
    images, texts = images.float(), texts.float()
    logits_per_image = scale * images @ gather_with_gradient(texts).T  # (B, W * B)
    logits_per_text = scale * texts @ gather_with_gradient(images).T
    target = _own_columns(images) if positives is None else positives / positives.sum(1, keepdim=True)
    return replicated_mean((F.cross_entropy(logits_per_image, target) + F.cross_entropy(logits_per_text, target)) / 2)


def siglip_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sigmoid loss, one binary decision per pair of image and text (Zhai et al. 2023, equation 1)."""
    images, texts = images.float(), texts.float()
    logits = scale * images @ gather_with_gradient(texts).T + bias  # (B, W * B)
    if positives is None:
        positives = F.one_hot(_own_columns(images), logits.shape[1]).bool()
    return replicated_mean(-F.logsigmoid(torch.where(positives, logits, -logits)).sum(1).mean())
