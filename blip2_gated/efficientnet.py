"""The style expert: a frozen EfficientNet, or our style encoder, next to BLIP-2's own vision tower.

pixel_values (B, 3, S, S) normalised for BLIP-2 -> its own statistics and size -> pooled (B, P) -> style (B, D)
of a style encoder: pooled holds its backbone's feature and its style vector, which is also a token (B, 1, D)
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import nn

from common.models.backbone import create_backbone
from common.models.checkpoint_file import read_tensors
from common.models.model_folder import is_model_folder, load_model
from common.text.schema import check_type
from model import KIND, Build, VisionStyleEncoder
from multimodal_utils import project_pooled_embed


class EfficientNetAdapter(nn.Module):
    """A frozen timm network and the trainable projection of its pooled feature.

    pretrained: True (timm's weights), False (random) or a file of weights, for instance trained on WikiArt; files of
    efficientnet_pytorch belong to names of tf_efficientnet_*, any other refuses them. width: of the projection, equal
    to the Q-Former's. mean, std: of BLIP-2. image_size: pixels; None takes the network's own. style_encoder: arguments
    of VisionStyleEncoder, if `pretrained` is a checkpoint of one, or was.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool | str,
        width: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int | None = None,
        style_encoder: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.style_width = 0
        if style_encoder:
            self.backbone = _open_style_encoder(pretrained, style_encoder)
            self.style_width = self.backbone.style_head.width
            self.pooled_width: int = self.backbone.tower.pooled_width + self.style_width
            size, interpolation = self.backbone.tower.image_size, self.backbone.tower.interpolation
            own_mean, own_std = (0.0,) * 3, (1.0,) * 3  # it normalises its input itself
            if image_size not in (None, size):
                raise ValueError(f"--model.efficientnet.image_size {image_size}: this style encoder takes {size}")
        else:
            self.backbone = create_backbone(name, pretrained)
            config = resolve_model_data_config(self.backbone)
            self.pooled_width = self.backbone.num_features
            size, interpolation = config["input_size"][-1], config["interpolation"]
            own_mean, own_std = config["mean"], config["std"]
        self.image_size: int = image_size or size
        self.interpolation = "bilinear" if interpolation == "bilinear" else "bicubic"
        self.preprocessing = {"size": self.image_size, "mean": list(own_mean), "std": list(own_std)}
        # (x * BLIP-2's std + BLIP-2's mean - own mean) / own std, as one factor and one shift per channel
        blip2, own = torch.tensor([mean, std]), torch.tensor([own_mean, own_std])
        self.register_buffer("factor", (blip2[1] / own[1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((blip2[0] - own[0]) / own[1]).view(1, 3, 1, 1), persistent=False)
        self.norm = nn.LayerNorm(self.pooled_width - self.style_width, elementwise_affine=False)
        self.project = nn.Linear(self.pooled_width, width)
        self.project_style = nn.Linear(self.style_width, width) if self.style_width else None
        self.backbone.requires_grad_(False)

    @torch.no_grad()
    def pooled(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The feature before the network's classifier, of a style encoder with the style vector behind it -> (B, P)."""
        image = self.renormalise(pixel_values)
        if self.style_width:
            output = self.backbone(image)
            return torch.cat([output.features.pooled, output.style], 1)
        return self.backbone.forward_head(self.backbone.forward_features(image), pre_logits=True)

    def renormalise(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) with BLIP-2's statistics -> (B, 3, s, s) with the network's."""
        image = pixel_values * self.factor + self.shift
        size = (self.image_size, self.image_size)
        if image.shape[-2:] == size:
            return image
        return F.interpolate(image, size, mode=self.interpolation, align_corners=False, antialias=True)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled (B, P) -> style (B, D)."""
        return project_pooled_embed(self.scaled(pooled), self.project)

    def scaled(self, pooled: torch.Tensor) -> torch.Tensor:
        """pooled (B, P), about 1 in every dimension: features of every network, random ones too, on one scale."""
        feature, style = pooled.split([self.pooled_width - self.style_width, self.style_width], 1)
        return torch.cat([self.norm(feature), style * self.style_width**0.5], 1)

    def style_token(self, pooled: torch.Tensor) -> torch.Tensor | None:
        """pooled (B, P) -> (B, 1, D), the style vector alone; None without a style encoder."""
        if self.project_style is None:
            return None
        return self.project_style(self.scaled(pooled)[:, -self.style_width :]).unsqueeze(1)

    def train(self, mode: bool = True) -> "EfficientNetAdapter":
        super().train(mode)
        self.backbone.eval()  # BatchNorm statistics and drop path stay fixed
        return self


def read_style_build(weights: bool | str) -> dict[str, Any] | None:
    """The arguments that build the style encoder of a checkpoint; None: not the weights of one."""
    if not isinstance(weights, str):
        return None
    if Path(weights).is_file():
        content = read_tensors(weights)
        is_style_encoder = isinstance(content, dict) and content.get("kind") == KIND
    else:
        is_style_encoder = is_model_folder(weights)
    return check_type(load_model(weights, KIND)["build"], Build, f"{weights}: build") if is_style_encoder else None


def _open_style_encoder(weights: bool | str, build: dict[str, Any]) -> VisionStyleEncoder:
    """weights: a checkpoint; False: untrained, for weights that follow."""
    return VisionStyleEncoder.from_pretrained(weights) if isinstance(weights, str) else VisionStyleEncoder(**build)
