"""Training model of CLIP, a batch to its loss, and the parameter groups of its optimizer."""

import math
import re

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from clip.losses import clip_loss, positive_pairs, siglip_loss
from clip.model import MAX_SCALE, CLIPModel

TOP = {"proj", "head", "ln_post", "ln_final", "text_projection", "attnpool", "logit_scale", "logit_bias", "pooler"}
BLOCKS = [re.compile(rf"\.{name}\.(\d+)\.") for name in ("resblocks", "blocks", "layer", "layers", "block", "stages")]
STAGE = re.compile(r"\.layer(\d+)\.")  # layer1 .. layer4 of a ResNet


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


def parameter_groups(model: CLIPModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for AdamW; 'scale' is the share of the learning rate (common/training/schedule.py).

    Weight decay for matrices only: none for biases, norms, temperature and position tables (Radford et al. 2021,
    section 2.5). layer_decay < 1: the learning rate of each layer is that share of the one above it (Clark et al. 2020,
    ELECTRA), which preserves pretrained features.
    """
    scales = layer_scales(model, layer_decay)
    no_decay = {f"network.{name}" for name in model.network.no_weight_decay()}
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in no_decay
            groups.setdefault((decays, scales[name]), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
        for (decays, scale), members in groups.items()
    ]


def layer_scales(model: CLIPModel, decay: float) -> dict[str, float]:
    """Parameter name -> share of the learning rate: 1 at each tower's top, times `decay` per layer below it."""
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    tower_of = {name: name.startswith("network.visual.") for name in depths}
    tops = {
        tower: 1 + max((depth or 0 for name, depth in depths.items() if tower_of[name] == tower), default=0)
        for tower in (True, False)
    }
    return {name: 1.0 if depth is None else decay ** (tops[tower_of[name]] - depth) for name, depth in depths.items()}


def _depth(name: str) -> int | None:
    """Depth of a parameter in its tower: 0 the embeddings, 1 the first block; None what lies above all blocks."""
    if match := next(filter(None, (block.search(name) for block in BLOCKS)), None):
        return int(match[1]) + 1
    if match := STAGE.search(name):
        return int(match[1])
    return None if TOP & set(name.split(".")) else 0
