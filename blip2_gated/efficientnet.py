"""The style expert: a frozen EfficientNet beside BLIP-2's own vision encoder.

pixel_values (B, 3, S, S) as BLIP-2 normalises them -> its own statistics and size -> pooled (B, P) -> style (B, D)
"""

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import nn

from common.models.backbone import create_backbone

INTERPOLATIONS = {"bilinear": "bilinear", "bicubic": "bicubic"}


class EfficientNetAdapter(nn.Module):
    """A timm network that never learns, and the projection of its pooled feature, which does.

    pretrained: True (timm's weights), False (random) or a file of weights, a WikiArt one for instance. `width`: of the
    projection, equal to the Q-Former's. image_size: pixels; None takes the network's own.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str,
        width: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int | None = None,
    ):
        super().__init__()
        self.backbone = create_backbone(name, pretrained)
        config = resolve_model_data_config(self.backbone)
        self.image_size: int = image_size or config["input_size"][-1]
        self.interpolation = INTERPOLATIONS.get(config["interpolation"], "bicubic")
        self.preprocessing = {"size": self.image_size, "mean": list(config["mean"]), "std": list(config["std"])}
        # (x * their std + their mean - our mean) / our std, as one factor and one shift per channel
        theirs, ours = torch.tensor([mean, std]), torch.tensor([config["mean"], config["std"]])
        self.register_buffer("factor", (theirs[1] / ours[1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((theirs[0] - ours[0]) / ours[1]).view(1, 3, 1, 1), persistent=False)
        self.pooled_width: int = self.backbone.num_features
        self.norm = nn.LayerNorm(self.pooled_width, elementwise_affine=False)
        self.project = nn.Linear(self.pooled_width, width)
        self.backbone.requires_grad_(False)

    def pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the network says of an image before its classifier -> (B, P), without gradient."""
        with torch.no_grad():
            image = self.renormalise(pixel_values)
            features = self.backbone.forward_features(image)
            return self.backbone.forward_head(features, pre_logits=True)

    def renormalise(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) with BLIP-2's statistics -> (B, 3, s, s) with the network's."""
        image = pixel_values * self.factor + self.shift
        if image.shape[-1] != self.image_size or image.shape[-2] != self.image_size:
            size = (self.image_size, self.image_size)
            image = F.interpolate(image, size, mode=self.interpolation, align_corners=False, antialias=True)
        return image

    def normalise(self, pooled: torch.Tensor) -> torch.Tensor:
        """Every network, random ones too, then speaks with the same loudness."""
        return self.norm(pooled)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled (B, P) -> style (B, D)."""
        return self.project(self.normalise(pooled))

    def train(self, mode: bool = True) -> "EfficientNetAdapter":
        super().train(mode)
        self.backbone.eval()  # BatchNorm statistics and drop path stand still
        return self
