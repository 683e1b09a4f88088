"""The style encoder.

image (B, 3, H, W) -> timm backbone -> patches (B, N, V), pooled (B, V), feature_maps
    patches      -> sequence head -> embed (B, L, D), mask_logits (B, L)     as a text encoder's for the style's text
    pooled       -> pooled head   -> pooled (B, P)                           its pooled vector
    feature_maps -> style head    -> style (B, S), unit length               to compare images

The style head (style_head.py) reads a colour histogram and statistics of feature maps at several depths, as style
transfer does (Gatys et al. 2016, Huang and Belongie 2017): strokes and texture are in the shallow maps, and statistics
over positions discard the arrangement of the content.
"""

from pathlib import Path
from typing import Any, NamedTuple, Required, cast

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, FiniteFloat, with_config
from torch import nn
from typing_extensions import TypedDict

from common.models.backbone import VisionFeatures, VisionTower
from common.models.build_arguments import building
from common.models.checkpoint_file import load_every_tensor, model_content
from common.models.model_folder import load_model, write_model_folder
from common.text.schema import check_type
from losses import mask_loss, sequence_losses, style_contrast, vector_losses
from multimodal_utils import lengths_to_mask
from style_head import StyleHead

KIND = "style encoder"


@with_config(ConfigDict(extra="forbid"))
class Build(TypedDict, total=False):
    """Arguments of VisionStyleEncoder that a checkpoint may hold: its `build`, which names no files."""

    model_name: Required[str]
    model_args: dict[str, Any] | None
    image_size: int | None
    sequence_length: int
    embed_width: int
    pooled_width: int
    predict_mask: bool
    style_width: int
    frozen_maps: int
    sequence_head: str
    dropout: FiniteFloat


class StyleOutput(NamedTuple):
    """None for outputs that the model was not trained to give."""

    embed: torch.Tensor | None  # (B, L, D)
    pooled: torch.Tensor | None  # (B, P)
    mask_logits: torch.Tensor | None  # (B, L); > 0 = real token
    style: torch.Tensor  # (B, S), unit length; in training mode its learned part alone, (B, style_width)
    features: VisionFeatures

    @property
    def mask(self) -> torch.Tensor | None:
        """Predicted mask (B, L), 1 = real: a prefix of as many tokens as have a positive logit, at least one."""
        if self.mask_logits is None:
            return None
        return lengths_to_mask((self.mask_logits > 0).sum(1).clamp(min=1), self.mask_logits.shape[1])


class VisionStyleEncoder(nn.Module):
    """image -> StyleOutput. `build` holds the arguments that build the same model again, without its weights.

    model_name, pretrained, image_size, model_args: as in VisionTower.
    frozen_maps: how many of the tower's feature maps, from the shallowest, training leaves as they are.
    style_width: dimensions of the learned part of the style vector; S is `style_head.width`.
    sequence_length L (tokens), embed_width D, pooled_width P: of the targets; 0: without that head.
    sequence_head: 'resampler' (L learned queries attend to the patches) or 'linear' (one token per patch, averaged
    along the sequence to L where the patches are not L).
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool | str = False,
        image_size: int | None = None,
        sequence_length: int = 0,
        embed_width: int = 0,
        pooled_width: int = 0,
        predict_mask: bool = False,
        style_width: int = 128,
        frozen_maps: int = 0,
        sequence_head: str = "resampler",
        drop_path_rate: float = 0.0,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        model_args: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.tower = tower = VisionTower(
            model_name,
            pretrained,
            image_size,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            model_args=model_args,
        )
        heads = {"resampler": ResamplerHead, "linear": LinearHead}
        if sequence_head not in heads:
            raise ValueError(f"sequence_head '{sequence_head}': expected one of {', '.join(heads)}")
        self.build: dict[str, Any] = {
            "model_name": tower.model_name,
            "model_args": tower.model_args,
            "image_size": tower.image_size,
            "sequence_length": sequence_length,
            "embed_width": embed_width,
            "pooled_width": pooled_width,
            "predict_mask": predict_mask,
            "style_width": style_width,
            "frozen_maps": frozen_maps,
            "sequence_head": sequence_head,
            "dropout": dropout,
        }
        self.sequence_head = None
        if embed_width:
            self.sequence_head = heads[sequence_head](
                tower.patch_width, embed_width, sequence_length, predict_mask, dropout
            )
        self.pooled_head = None
        if pooled_width:
            self.pooled_head = nn.Sequential(
                nn.LayerNorm(tower.pooled_width),
                nn.Linear(tower.pooled_width, tower.pooled_width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(tower.pooled_width, pooled_width),
            )
        self.style_head = StyleHead(tower.feature_map_widths, style_width, dropout, frozen_maps)
        tower.freeze_maps(frozen_maps)

    @classmethod
    def open(cls, path: str | Path) -> "tuple[VisionStyleEncoder, dict[str, Any]]":
        """A file of train.py, a folder of save_pretrained or tools/push_to_hub.py, or a name on the Hub -> the encoder
        in eval mode, and the rest of the content."""
        content = load_model(path, KIND)
        weights = content.pop("model_state_dict")
        build = check_type(content["build"], Build, f"{path}: build")
        with building(path, build, weights):
            encoder = cls(**build)
        load_every_tensor(encoder, weights, path, "the model that it describes")
        return encoder.eval(), content

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "VisionStyleEncoder":
        """The encoder of `open`, alone."""
        return cls.open(path)[0]

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json and model.safetensors, for from_pretrained and tools/push_to_hub.py."""
        write_model_folder(folder, model_content(self, KIND, self.build, preprocessing=self.preprocessing))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Preprocessing of an image file; normalisation happens in the model."""
        return {"image_size": self.tower.image_size, "interpolation": self.tower.interpolation}

    def forward(self, image: torch.Tensor) -> StyleOutput:
        """image (B, 3, H, W), uint8 0..255 or float 0..1 -> StyleOutput."""
        features = self.tower(image)
        embed, mask_logits = self.sequence_head(features.patches) if self.sequence_head else (None, None)
        pooled = self.pooled_head(features.pooled) if self.pooled_head else None
        return StyleOutput(embed, pooled, mask_logits, self.style_head(image, features.feature_maps), features)


class ResamplerHead(nn.Module):
    """patches (B, N, V) -> embed (B, L, D), mask_logits (B, L) or None, by learned queries (Perceiver resampler,
    Alayrac et al. 2022): the number of tokens is independent of the number of patches."""

    def __init__(self, patch_width: int, embed_width: int, length: int, predict_mask: bool, dropout: float):
        super().__init__()
        width = min(512, max(64, patch_width // 64 * 64))
        self.queries = nn.Parameter(torch.randn(length, width) * 0.02)
        self.project_in = nn.Sequential(nn.LayerNorm(patch_width), nn.Linear(patch_width, width))
        self.attention = nn.MultiheadAttention(width, width // 64, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.norm = nn.LayerNorm(width)
        self.project_out = nn.Linear(width, embed_width)
        self.mask_head = nn.Linear(width, 1) if predict_mask else None

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        keys = self.project_in(patches)  # (B, N, W)
        queries = self.queries.expand(patches.shape[0], -1, -1)  # (B, L, W)
        tokens = queries + self.attention(queries, keys, keys, need_weights=False)[0]
        tokens = self.norm(tokens + self.mlp(tokens))
        return self.project_out(tokens), self.mask_head(tokens).squeeze(-1) if self.mask_head else None


class LinearHead(nn.Module):
    """patches (B, N, V) -> embed (B, L, D), mask_logits (B, L) or None: each patch is projected separately."""

    def __init__(self, patch_width: int, embed_width: int, length: int, predict_mask: bool, dropout: float):
        super().__init__()
        self.length = length
        self.project_out = nn.Sequential(
            nn.LayerNorm(patch_width), nn.Dropout(dropout), nn.Linear(patch_width, embed_width)
        )
        self.mask_head = nn.Linear(patch_width, length) if predict_mask else None

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        embed = self.project_out(patches)  # (B, N, D)
        if embed.shape[1] != self.length:
            embed = F.adaptive_avg_pool1d(embed.transpose(1, 2), self.length).transpose(1, 2)
        return embed, self.mask_head(patches.mean(1)) if self.mask_head else None


class StyleTrainingModel(nn.Module):
    """The encoder with its loss: model(**batch) -> (loss, parts), as the trainer expects."""

    def __init__(self, encoder: VisionStyleEncoder, weights: dict[str, float], temperature: float = 0.1):
        super().__init__()
        self.encoder, self.weights, self.temperature = encoder, weights, temperature

    def forward(
        self, image: torch.Tensor, style_ids: torch.Tensor, **targets: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """image (B, 3, H, W), style_ids (B,); targets as in StyleDataset -> loss, unweighted parts."""
        output = self.encoder(image)
        parts = {}
        if output.embed is not None:
            parts["embed_mse"], parts["embed_cosine"] = sequence_losses(
                output.embed, targets["embed"], targets["mask"], targets["has_embed"]
            )
        if output.pooled is not None:
            parts["pooled_mse"], parts["pooled_cosine"] = vector_losses(
                output.pooled, targets["pooled"], targets["has_pooled"]
            )
        if output.mask_logits is not None:
            parts["mask"] = mask_loss(output.mask_logits, targets["mask"], targets["has_mask"])
        parts["style"], without_positives = style_contrast(output.style, style_ids, self.temperature)
        loss = cast(torch.Tensor, sum(self.weights[name] * part for name, part in parts.items()))
        return loss, {**parts, "anchors_without_positives": without_positives}
