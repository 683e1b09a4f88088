"""What the libraries lack: losses over targets that may be absent or padded, equal on any number of devices.

Every mean is sum / count with the count taken over all devices (`mean_over_devices`), so that gradients averaged by
DDP are those of one device seeing the whole batch.
"""

import torch
import torch.distributed
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss
from torch.distributed.nn.functional import all_gather


def sequence_losses(
    predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """predicted, target (B, L, D), mask (B, L) 1 = real, present (B,) -> mean squared error per element, 1 - cosine.

    Padding and absent samples weigh nothing; a real token weighs the same wherever it stands.
    """
    weight = mask.float() * present.float()[:, None]  # (B, L)
    return _weighted_losses(predicted, target, weight)


def vector_losses(
    predicted: torch.Tensor, target: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """predicted, target (B, P), present (B,) -> mean squared error per element, 1 - cosine."""
    return _weighted_losses(predicted, target, present.float())


def mask_loss(logits: torch.Tensor, mask: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of mask logits (B, L) over the samples whose mask is present (B,)."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), mask.float(), reduction="none").mean(1)
    return mean_over_devices((entropy * present.float()).sum(), present.float().sum())


def style_contrast(
    style: torch.Tensor, style_ids: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Supervised contrast (Khosla et al. 2020, equation 2) over all devices' vectors -> loss, share of lone anchors.

    style (B, S) unit vectors, style_ids (B,). An anchor without a positive is left out of the mean; its share is
    returned so that a sampler that makes them is seen. Every device computes the whole loss on vectors gathered with
    gradient; the gather's backward sums over devices and DDP's mean divides again.
    """
    style, style_ids = gather_with_gradient(style.float()), gather_with_gradient(style_ids)
    positives = (style_ids[:, None] == style_ids[None]).sum(1) - 1
    return SupConLoss(temperature=temperature)(style, style_ids), (positives == 0).float().mean()


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """(B, ...) on each device -> (B * world, ...) on every device."""
    if not _distributed():
        return tensor
    if tensor.requires_grad:
        return torch.cat(all_gather(tensor.contiguous()))
    parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def mean_over_devices(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """This device's sum over everybody's count, times the world size that DDP's mean divides by. 0 where none."""
    world = 1
    if _distributed():
        world = torch.distributed.get_world_size()
        count = count.detach().clone()
        torch.distributed.all_reduce(count)
    return total * world / count.clamp(min=1)


def _weighted_losses(predicted, target, weight) -> tuple[torch.Tensor, torch.Tensor]:
    predicted, target = predicted.float(), target.float()  # cosine in half precision overflows
    squared = ((predicted - target) ** 2).mean(-1)
    cosine = 1 - F.cosine_similarity(predicted, target, dim=-1)
    count = weight.sum()
    return mean_over_devices((squared * weight).sum(), count), mean_over_devices((cosine * weight).sum(), count)


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
