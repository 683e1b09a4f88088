"""Contrastive losses between the images and the texts of a batch, over all devices.

images, texts (B, D) unit, on each of W devices -> gathered (W * B, D) with gradient -> loss of this device's rows

A batch's other texts are taken for wrong ones. Where two pairs have the same words or show the same character they are
not, so `positives` says which pairs go together; with none given, image i belongs to text i alone (the textbook loss).
"""

import torch
import torch.nn.functional as F

from common.training.distributed import gather_with_gradient, rank, replicated_mean

LOSSES = ("clip", "siglip")  # names for --loss; CLIPTrainingModel.forward calls what each stands for


def positive_pairs(*ids: torch.Tensor) -> torch.Tensor:
    """ids: (B,) each, -1 = none; -> (B, W * B) True where a pair of this device shares an id with any pair.

    Every pair is its own positive.
    """
    count = len(ids[0])
    own = rank() * count + torch.arange(count, device=ids[0].device)
    everyone = [gather_with_gradient(one) for one in ids]
    positive = F.one_hot(own, len(everyone[0])).bool()
    for mine, others in zip(ids, everyone):
        positive |= (mine[:, None] == others[None]) & (mine[:, None] >= 0)
    return positive


def clip_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, positives: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of image-to-text and text-to-image cross-entropy (Radford et al. 2021, figure 3).

    scale: 1 / temperature. Several positives share the target equally (as in Yang et al. 2022, UniCL, with their mean
    in place of their sum, so that a frequent caption does not weigh more).
    """
    images, texts = images.float(), texts.float()
    logits_per_image = scale * images @ gather_with_gradient(texts).T  # (B, W * B)
    logits_per_text = scale * texts @ gather_with_gradient(images).T
    count = len(images)
    if positives is None:
        target = rank() * count + torch.arange(count, device=images.device)
    else:
        target = positives / positives.sum(1, keepdim=True)
    return replicated_mean((F.cross_entropy(logits_per_image, target) + F.cross_entropy(logits_per_text, target)) / 2)


def siglip_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Every pair of image and text on its own: do they belong together (Zhai et al. 2023, equation 1)."""
    images, texts = images.float(), texts.float()
    logits = scale * images @ gather_with_gradient(texts).T + bias  # (B, W * B)
    if positives is None:
        count = len(images)
        own = rank() * count + torch.arange(count, device=images.device)
        positives = F.one_hot(own, logits.shape[1]).bool()
    return replicated_mean(-F.logsigmoid(torch.where(positives, logits, -logits)).sum(1).mean())
