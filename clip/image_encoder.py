"""A CLIP as an image encoder, for vector stores and retrieval.

pixels (B, 3, S, S) uint8 -> projected vector (B, D), comparable with texts; or tokens of any block
"""

import torch
from open_clip.timm_model import TimmModel

from clip.model import CLIPModel
from common.models.backbone import Tokens, backbone_tokens
from common.models.pooling import ImageEncoder
from common.vectors.extractor import Extractor, ExtractorOptions


class CLIPImageEncoder(ImageEncoder):
    """Its native vector is the projected one."""

    has_native = True

    def __init__(self, model: CLIPModel):
        super().__init__()
        self.model = model
        self.image_size, self.preprocess = model.image_size, model.preprocess

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        visual = self.model.network.visual
        if isinstance(visual, TimmModel):
            return backbone_tokens(visual.trunk, self.model.normalise(pixels), layer)
        try:
            features = visual.forward_intermediates(
                self.model.normalise(pixels),
                indices=[layer],
                intermediates_only=True,
                output_extra_tokens=True,
                normalize_intermediates=layer == -1 and getattr(visual, "attn_pool", visual) is None,
            )
        except AssertionError as error:
            raise ValueError(f"--layer {layer}: {error}") from None
        cls = features.get("image_intermediates_prefix")
        return Tokens(features["image_intermediates"][0].flatten(2).mT, cls[0][:, 0] if cls else None)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return self.model.encode_text(texts).float()


def clip_extractor(model: CLIPModel, weights: str, batch_size: int = 64) -> Extractor:
    """Vectors of image files as the model gives them: whole files decoded, in float32."""
    return Extractor(
        CLIPImageEncoder(model), weights, ExtractorOptions(batch_size=batch_size, precision="fp32"), full_decode=True
    )
