"""Training model of CLIP: a batch to its loss."""

import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip.losses import clip_loss, positive_pairs, siglip_loss
from clip.model import MAX_SCALE, CLIPModel


class CLIPTrainingModel(nn.Module):
    """model(image, tokens, text_ids, group_ids) -> loss, parts.

    slices > 1 is the gradient cache (Gao et al. 2021): the loss sees the whole batch while activations of one slice at
    a time are in memory. Each slice is an activation checkpoint: the backward pass recomputes it with the same random
    state, and the gradients add up to those of the whole batch.
    """

    def __init__(self, model: CLIPModel, loss: str = "clip", multi_positive: bool = True, slices: int = 1):
        super().__init__()
        self.model, self.loss, self.multi_positive, self.slices = model, loss, multi_positive, slices

    def forward(
        self, image: torch.Tensor, tokens: torch.Tensor, text_ids: torch.Tensor, group_ids: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """image (B, 3, S, S), tokens (B, T); text_ids (B,) equal = the same words, group_ids (B,) equal and not -1 =
        the same character."""
        network = self.model.network
        with torch.no_grad():
            network.logit_scale.clamp_(0, math.log(MAX_SCALE))
        images, texts = self._encode(self.model.encode_image, image), self._encode(self.model.encode_text, tokens)
        positives = positive_pairs(text_ids, group_ids) if self.multi_positive else None
        if self.loss == "siglip":
            loss = siglip_loss(images, texts, self.model.scale, network.logit_bias, positives)
        else:
            loss = clip_loss(images, texts, self.model.scale, positives)
        return loss, {"scale": self.model.scale.detach(), "positive_cosine": (images * texts).sum(1).mean().detach()}

    def _encode(self, encode, values: torch.Tensor) -> torch.Tensor:
        if self.slices == 1 or not torch.is_grad_enabled():
            return encode(values)
        return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in values.chunk(self.slices)])
