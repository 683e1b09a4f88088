"""Losses over targets that may be absent or padded, equal on any number of devices.

Every mean is sum / count with the count taken over all devices (`global_mean`), so that gradients averaged by
DDP are those of one device that sees the whole batch.
"""

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss

from common.training.distributed import gather_with_gradient, global_mean


def sequence_losses(
    predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """predicted, target (B, L, D), mask (B, L) 1 = real, present (B,) -> mean squared error per element, 1 - cosine.

    Padding and absent samples have no weight; all real tokens have the same.
    """
    return _weighted_losses(predicted, target, mask.float() * present.float()[:, None])


def vector_losses(
    predicted: torch.Tensor, target: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """predicted, target (B, P), present (B,) -> mean squared error per element, 1 - cosine."""
    return _weighted_losses(predicted, target, present.float())


def mask_loss(logits: torch.Tensor, mask: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of mask logits (B, L) over the samples whose mask is present (B,)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), mask.float(), reduction="none").mean(1)
    return global_mean((entropy * present.float()).sum(), present.float().sum())


def style_contrast(
    style: torch.Tensor, style_ids: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Supervised contrast (Khosla et al. 2020, equation 2) over all devices' vectors -> loss, share of anchors without
    positives.

    style (B, S) unit vectors, style_ids (B,). The mean is over anchors with a positive; the share of the others shows a
    sampler that produces them. Every device computes the whole loss on vectors gathered with
    gradient; the gather's backward sums over devices and DDP's mean divides again.
    """
    style, style_ids = gather_with_gradient(style.float()), gather_with_gradient(style_ids)
    positives = (style_ids[:, None] == style_ids[None]).sum(1) - 1
    return SupConLoss(temperature=temperature)(style, style_ids), (positives == 0).float().mean()


def _weighted_losses(
    predicted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    predicted, target = predicted.float(), target.float()  # cosine in half precision overflows
    squared = ((predicted - target) ** 2).mean(-1)
    cosine = 1 - F.cosine_similarity(predicted, target, dim=-1)
    count = weight.sum()
    return global_mean((squared * weight).sum(), count), global_mean((cosine * weight).sum(), count)
