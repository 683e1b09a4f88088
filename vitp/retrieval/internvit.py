"""An InternViT taken out of an instruction-trained model, as an encoder of images.

.pth, .safetensors, or folder (either layout) -> InternVLVisionModel, no tensor left over
pixels (B, 3, S, S) uint8 -> tokens of any block (B, 1 + N, V); blocks behind it are not computed
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import InternVLVisionModel

from common.image_vectors import ImageEncoder, Tokens
from vitp.internvl_keys import vision_config, vit_to_transformers
from vitp.tiling import IMAGENET_MEAN, IMAGENET_STD
from vitp.weights import check_names, read_weights

HEADS = {1024: 16, 3200: 25}  # width of the published InternViT: attention heads, which no tensor shows

STATISTICS = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}


class InternViTVectors(ImageEncoder):
    """It was never trained to compare images, so it has no vector of its own: the mean of its patches stands in."""

    def __init__(self, model: InternVLVisionModel, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        super().__init__()
        self.model = model
        self.image_size = model.config.image_size[0]
        self.preprocess = Squash(self.image_size)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        """Layer -1 is transformers' last_hidden_state, -2 its hidden_states[-2], and so on."""
        blocks = self.model.encoder.layer
        if not -len(blocks) <= layer <= -1:
            raise ValueError(f"--layer {layer}: this ViT has {len(blocks)} blocks; expected -{len(blocks)} to -1")
        hidden = self.model.embeddings((pixels / 255 - self.mean) / self.std)  # (B, 1 + N, V)
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


def open_internvit(weights: str | Path, image_size: int = 0) -> InternViTVectors:
    """A file or folder of InternViT weights, in InternVL's names or transformers'. image_size: pixels, 0 = its own."""
    tensors = read_weights(weights)
    if any(name.startswith(("vision_model.", "model.vision_tower.", "language_model.")) for name in tensors):
        raise ValueError(f"{weights}: a whole model; take its ViT out with python vitp/extract_vit.py")
    if "embeddings.class_embedding" in tensors:
        tensors = vit_to_transformers(tensors)
    hints = read_hints(Path(weights))
    if not hints.get("num_attention_heads"):
        width = tensors.get("embeddings.cls_token", torch.empty(1, 1, 0)).shape[-1]
        hints["num_attention_heads"] = HEADS.get(width)
    try:
        config = vision_config(tensors, hints)
    except ValueError as error:
        raise ValueError(f"{weights}: {error}") from None
    model = InternVLVisionModel(config)
    check_names(set(tensors), set(model.state_dict()), weights)
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    encoder = InternViTVectors(model, *(hints.get(name, own) for name, own in STATISTICS.items()))
    if image_size:
        step = config.patch_size[0]
        if image_size % step:
            raise ValueError(f"--image_size {image_size}: expected a multiple of {step}, the side of a patch")
        encoder.image_size, encoder.preprocess = image_size, Squash(image_size)
    return encoder


def read_hints(weights: Path) -> dict:
    """What the tensors do not show, from the JSON files in a folder, or beside a file."""
    folder, stem = (weights, "config") if weights.is_dir() else (weights.parent, weights.stem)
    hints: dict = {}
    for name in ("preprocessor_config.json", "config.json", f"{stem}.json"):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text(encoding="utf-8"))
            hints |= said.get("vision_config", said)  # of a whole model: the part that speaks of the ViT
    return hints
