"""The vision encoder of an instruction-trained model, as an encoder of images.

.pth or .safetensors of extract_vit.py, folder of a ViT or of a whole model, in any layout -> its ViT, every tensor used
pixels (B, 3, S, S) uint8 -> tokens of any block (B, 1 + N, V); blocks behind it are not computed
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import TimmWrapperModel

from common.models.pooling import ImageEncoder
from common.models.timm_tokens import Tokens, backbone_tokens, normalise
from vitp.vision_encoder import Vit, load_vit


class VitVectors(ImageEncoder):
    """It was never trained to compare images, so it has no vector of its own: the mean of its patches stands in."""

    def __init__(self, model: nn.Module, vit: Vit):
        super().__init__()
        self.model = model
        self.image_size, self.patch_size = vit.config.image_size[0], vit.config.patch_size[0]
        self.preprocess = Squash(self.image_size)
        self.register_buffer("mean", torch.tensor(vit.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(vit.image_std).view(1, 3, 1, 1), persistent=False)

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        """Layer -1 is transformers' last_hidden_state, -2 its hidden_states[-2], and so on."""
        image = normalise(pixels, self.mean, self.std)
        if isinstance(self.model, TimmWrapperModel):
            return backbone_tokens(self.model.timm_model, image, layer)
        blocks = self.model.encoder.layer
        if not -len(blocks) <= layer <= -1:
            raise ValueError(f"--layer {layer}: this ViT has {len(blocks)} blocks; expected -{len(blocks)} to -1")
        hidden = self.model.embeddings(image)  # (B, 1 + N, V)
        for block in blocks[: len(blocks) + 1 + layer]:
            hidden = block(hidden)
        if layer == -1:
            hidden = self.model.layernorm(hidden)
        return Tokens(hidden[:, 1:], hidden[:, 0])


class Squash:
    """image -> (3, S, S) uint8: the whole image, whatever its shape, as the tiles of its training were."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = np.array(image.resize((self.size, self.size), Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def open_vit(weights: str | Path, image_size: int = 0) -> VitVectors:
    """image_size: pixels, a multiple of the patch size, which an InternViT resamples its positions for; 0 = its own."""
    try:
        model, vit = load_vit(weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).replace("give --config", "put it there")) from None
    encoder = VitVectors(model.float(), vit)
    if image_size not in (0, encoder.image_size):
        if image_size % encoder.patch_size or isinstance(model, TimmWrapperModel):
            right = "its own size" if isinstance(model, TimmWrapperModel) else f"a multiple of {encoder.patch_size}"
            raise ValueError(f"--image_size {image_size}: {weights} takes {right}")
        encoder.image_size, encoder.preprocess = image_size, Squash(image_size)
    return encoder
