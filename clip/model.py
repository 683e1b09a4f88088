"""Image and text towers that put a picture and its words at the same place.

image (B, 3, S, S) -> visual tower -> projection -> (B, D) unit \\
                                                                 cosine * scale -> logits (B, B) -> loss
tokens (B, T)      -> text tower   -> projection -> (B, D) unit /

The networks are open_clip's, so weights come and go between the two, and to Hugging Face by clip/huggingface.py.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import text_global_pool
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config
from torch import nn
from transformers import AutoModel

from clip.architectures import architecture_of, build_network, with_text_tower
from clip.pretrained_weights import load_pretrained, load_weights
from clip.tokenizer import ClipTokenizer, HuggingFaceTokenizer, pad, read_tokenizer, tokenizer_from
from common.models.backbone import create_backbone

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5: the temperature never falls below 0.01
STATISTICS = {  # mean and standard deviation of each channel, for pixels in [0, 1]
    "clip": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}


class CLIPModel(nn.Module):
    """`CLIPModel("ViT-B/32")`, or from plain facts (`CLIPModel(facts=...)`), as a checkpoint does.

    model_name: ViT-B/32, ViT-B/16, ViT-L/14, RN50, RN101, small. pretrained: None (random), 'openai', another tag of
    open_clip, or a file. image_tower + image_weights: a timm model with timm's weights (True), none, or a file of them;
    text_tower: a Hugging Face encoder by name or folder, with its weights. normalisation: auto (the weights' own), clip
    or imagenet.
    """

    def __init__(
        self,
        model_name: str = "ViT-B/32",
        pretrained: str | None = None,
        *,
        image_size: int | None = None,
        projection_dim: int | None = None,
        patch_dropout: float = 0.0,
        image_tower: str | None = None,
        image_weights: bool | str = False,
        text_tower: str | None = None,
        sigmoid: bool = False,
        normalisation: str = "auto",
        facts: dict[str, Any] | None = None,
    ):
        super().__init__()
        if facts is None:
            architecture = architecture_of(model_name, image_size, projection_dim, patch_dropout, image_tower)
            tokenizer = ClipTokenizer(architecture["text_cfg"]["context_length"])
            if text_tower:
                architecture = with_text_tower(architecture, text_tower)
                text = architecture["text_cfg"]
                tokenizer = read_tokenizer(text_tower, text["context_length"], text["hf_config"]["pad_token_id"])
            if pretrained == "openai":
                architecture["quick_gelu"] = True  # OpenAI trained with it; their weights mean nothing without
            facts = {"architecture": architecture, "sigmoid": sigmoid, "tokenizer": tokenizer.to_facts()}
        self.facts = facts
        self.network = build_network(facts["architecture"], facts["sigmoid"])
        self.image_size: int = facts["architecture"]["vision_cfg"]["image_size"]
        self.tokenizer: ClipTokenizer | HuggingFaceTokenizer = tokenizer_from(facts["tokenizer"])
        self.frozen: list[nn.Module] = []
        own_statistics = STATISTICS["clip"]
        if image_tower:
            trunk = create_backbone(image_tower, image_weights, self.image_size)
            self.network.visual.trunk.load_state_dict(trunk.state_dict())
            config = resolve_model_data_config(trunk)
            own_statistics = config["mean"], config["std"]
        if text_tower:
            self.network.text.transformer = AutoModel.from_pretrained(text_tower, add_pooling_layer=False)
        if pretrained:
            own_statistics = load_pretrained(self.network, model_name, pretrained) or own_statistics
        if "mean" not in facts:
            if normalisation not in ("auto", *STATISTICS):
                raise ValueError(f"--normalisation {normalisation}: expected auto, clip or imagenet")
            mean, std = STATISTICS.get(normalisation, own_statistics)
            facts |= {"mean": [float(one) for one in mean], "std": [float(one) for one in std]}
        # Preprocessing belongs to the weights: it is done inside, so that no caller can do it wrongly.
        self.register_buffer("mean", torch.tensor(facts["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def logit_scale(self) -> torch.Tensor:
        """ln(1 / temperature), a parameter; `scale` is what cosines are multiplied by."""
        return self.network.logit_scale

    @property
    def scale(self) -> torch.Tensor:
        return self.network.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """image (B, 3, S, S), tokens (C, T) -> logits_per_image (B, C), logits_per_text (C, B)."""
        logits = self.scale * self.encode_image(image) @ self.encode_text(tokens).T
        if self.network.logit_bias is not None:
            logits = logits + self.network.logit_bias
        return logits, logits.T

    def encode_image(self, image: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """image (B, 3, S, S), uint8 0..255 or float 0..1 -> (B, D), of length 1 unless `normalize` is False."""
        size = self.image_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"image {tuple(image.shape)}: this model reads (B, 3, {size}, {size})")
        return self.network.encode_image(self.normalise(image), normalize=normalize)

    def encode_text(self, tokens: torch.Tensor | list[str], normalize: bool = True) -> torch.Tensor:
        """tokens (B, T), or the texts themselves -> (B, D), of length 1 unless `normalize` is False."""
        network = self.network
        if not torch.is_tensor(tokens):
            tokens = self.tokenize(tokens).to(self.mean.device)
        if not hasattr(network, "token_embedding"):
            return network.encode_text(tokens, normalize=normalize)
        # As open_clip's own, but for T below the context length, which the causal mask allows.
        length, dtype = tokens.shape[1], network.transformer.get_cast_dtype()
        hidden = network.token_embedding(tokens).to(dtype) + network.positional_embedding[:length].to(dtype)
        mask = None if network.attn_mask is None else network.attn_mask[:length, :length]
        hidden = network.ln_final(network.transformer(hidden, attn_mask=mask))  # (B, T, width)
        pooled = text_global_pool(hidden, tokens, network.text_pool_type, network.text_eos_id)
        features = pooled @ network.text_projection
        return F.normalize(features, dim=-1) if normalize else features

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """-> (B, T) int64, T = tokens of the longest text; more than the context length is cut."""
        return pad(self.tokenizer.encode(texts)[0], self.tokenizer.pad_id)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), uint8 0..255 or float 0..1 -> what the tower reads."""
        unit = image / 255 if image.dtype == torch.uint8 else image
        return (unit - self.mean) / self.std

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """-> (3, S, S) uint8: shorter side to S, bicubic, then the centred square, to the pixel as CLIP's own."""
        size, (width, height) = self.image_size, image.size
        short = min(width, height)
        width, height = int(size * width / short), int(size * height / short)
        left, top = round((width - size) / 2), round((height - size) / 2)
        scaled = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        return torch.tensor(np.asarray(scaled)[top : top + size, left : left + size]).permute(2, 0, 1)

    def freeze_backbone(self) -> None:
        """Only the projections and the temperature learn."""
        visual, network = self.network.visual, self.network
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        text = network.text.proj.parameters() if hasattr(network, "text") else [network.text_projection]
        for parameter in [*_projection_of(visual), *text, network.logit_scale, network.logit_bias]:
            if parameter is not None:
                parameter.requires_grad_(True)
        self.frozen = [network.visual, network.text.transformer if hasattr(network, "text") else network.transformer]
        self.train(self.training)

    def lock_image_tower(self) -> None:
        """LiT (Zhai et al. 2022): the image tower stays as it is and the text tower learns to read it.

        A timm tower's projection is new and goes on learning.
        """
        for parameter in self.network.visual.parameters():
            parameter.requires_grad_(False)
        if hasattr(self.network.visual, "trunk"):
            for parameter in self.network.visual.head.parameters():
                parameter.requires_grad_(True)
        self.frozen = [self.network.visual]
        self.train(self.training)

    def train(self, mode: bool = True) -> "CLIPModel":
        super().train(mode)
        for module in self.frozen:  # BatchNorm statistics and dropout of what is frozen stand still
            module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Less memory for about a third more time."""
        self.network.set_grad_checkpointing(enable)

    def load_checkpoint(self, path: str | Path) -> None:
        """Weights of this architecture: a file of ours, of open_clip or of OpenAI (also its TorchScript archives)."""
        load_weights(self.network, Path(path))


def _projection_of(visual: nn.Module) -> Iterable[nn.Parameter]:
    if hasattr(visual, "trunk"):
        return visual.head.parameters()
    return visual.attnpool.c_proj.parameters() if hasattr(visual, "attnpool") else [visual.proj]
