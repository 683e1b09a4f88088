"""The style encoder: a frozen EfficientNet next to BLIP-2's own vision tower.

pixel_values (B, 3, S, S) normalised for BLIP-2 -> its own statistics and size -> pooled (B, P) -> style (B, D)
"""

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import nn

from common.models.backbone import create_backbone
from multimodal_utils import project_pooled_embed


class EfficientNetAdapter(nn.Module):
    """A frozen timm network and the trainable projection of its pooled feature.

    pretrained: True (timm's weights), False (random) or a file of weights, for instance trained on WikiArt; files of
    efficientnet_pytorch belong to names of tf_efficientnet_*, any other refuses them. width: of the projection, equal
    to the Q-Former's. mean, std: of BLIP-2. image_size: pixels; None takes the network's own.
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
        self.interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
        self.preprocessing = {"size": self.image_size, "mean": list(config["mean"]), "std": list(config["std"])}
        # (x * BLIP-2's std + BLIP-2's mean - own mean) / own std, as one factor and one shift per channel
        blip2, own = torch.tensor([mean, std]), torch.tensor([config["mean"], config["std"]])
        self.register_buffer("factor", (blip2[1] / own[1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((blip2[0] - own[0]) / own[1]).view(1, 3, 1, 1), persistent=False)
        self.pooled_width: int = self.backbone.num_features
        self.norm = nn.LayerNorm(self.pooled_width, elementwise_affine=False)
        self.project = nn.Linear(self.pooled_width, width)
        self.backbone.requires_grad_(False)

    def pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The feature before the network's classifier -> (B, P), without gradient."""
        with torch.no_grad():
            return self.backbone.forward_head(
                self.backbone.forward_features(self.renormalise(pixel_values)), pre_logits=True
            )

    def renormalise(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) with BLIP-2's statistics -> (B, 3, s, s) with the network's."""
        image = pixel_values * self.factor + self.shift
        size = (self.image_size, self.image_size)
        if image.shape[-2:] == size:
            return image
        return F.interpolate(image, size, mode=self.interpolation, align_corners=False, antialias=True)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled (B, P) -> style (B, D). The norm gives features of every network, random ones too, the same scale."""
        return project_pooled_embed(self.norm(pooled), self.project)

    def train(self, mode: bool = True) -> "EfficientNetAdapter":
        super().train(mode)
        self.backbone.eval()  # BatchNorm statistics and drop path stay fixed
        return self
