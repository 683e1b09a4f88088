"""Published metadata of well-known models, and the outputs of the publishers' own code.

name -> metadata of REFERENCES; a CLIP, pictures and texts -> cosines; a timm model and pictures -> vectors
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import CLIPModel, CLIPProcessor

from common.models.model_config import read_model_config

# Computed from the published config.json alone: parameters of the publisher's class built on the meta device, tokens of
# one image (or tile) in the language model's sequence.
REFERENCES: dict[str, dict[str, Any]] = {
    "ViT-B-32:openai": {"parameters": 151_277_313, "image_size": 224, "activation": "QuickGELU"},
    "ViT-B-16:openai": {"parameters": 149_620_737, "image_size": 224, "activation": "QuickGELU"},
    "ViT-L-14:openai": {"parameters": 427_616_513, "image_size": 224, "activation": "QuickGELU"},
    "ViT-B-32:laion2b_s34b_b79k": {"parameters": 151_277_313, "image_size": 224, "activation": "GELU"},
    "clip-vit-base-patch32": {"parameters": 151_277_313, "image_size": 224, "activation": "QuickGELU"},
    "clip-vit-large-patch14": {"parameters": 427_616_513, "image_size": 224, "activation": "QuickGELU"},
    "InternViT-300M-448px": {"parameters": 304_012_288, "image_size": 448},
    "InternVL2_5-1B": {"parameters": 938_193_024, "image_size": 448, "image_tokens": 256},
    "blip2-opt-2.7b": {"image_size": 224, "image_tokens": 32},  # 3.74 billion, as many as its revision has tokens
    "llava-1.5-7b-hf": {"parameters": 7_063_427_072, "image_size": 336, "image_tokens": 576},
    "llava-1.5-13b-hf": {"parameters": 13_351_494_656, "image_size": 336, "image_tokens": 576},
    "tf_efficientnet_lite0": {"parameters": 3_371_008, "image_size": 224},  # without its classifier
    "vit_small_patch14_dinov2": {"parameters": 22_056_192, "image_size": 518},
}


def clip_cosines(weights: str, images: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor | None:
    """Cosines (images, texts) by transformers or open_clip for a folder, by open_clip for its tags; None for others."""
    folder = Path(weights)
    if (folder / "config.json").is_file() and read_model_config(folder / "config.json").get("model_type") == "clip":
        network = CLIPModel.from_pretrained(weights)
        inputs = CLIPProcessor.from_pretrained(weights)(text=texts, images=images, padding=True, return_tensors="pt")
        outputs = network(**inputs)
        return outputs.image_embeds @ outputs.text_embeds.T
    name, _, tag = weights.replace("/", "-").partition(":")
    if (folder / "open_clip_config.json").is_file():
        name, tag = f"local-dir:{weights}", ""
    elif (tag := tag or "openai") not in open_clip.list_pretrained_tags_by_model(name):
        return None
    network, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=tag or None)
    pixels, tokens = torch.stack([preprocess(image) for image in images]), open_clip.get_tokenizer(name)(texts)
    network.eval()
    return network.encode_image(pixels, normalize=True) @ network.encode_text(tokens, normalize=True).T


def timm_vectors(weights: str, images: Sequence[Image.Image]) -> torch.Tensor:
    """Unit vectors (images, D) by timm itself, with its own preprocessing. weights: a name of timm's."""
    network = timm.create_model(weights.removeprefix("timm/"), pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(network))
    return F.normalize(network(torch.stack([transform(image) for image in images])), dim=1)
