"""CLIP: image and text towers with projections to one space.

image (B, 3, S, S) -> visual tower -> projection -> (B, D) unit \\
                                                                 cosine * scale -> logits (B, B) -> loss
tokens (B, T)      -> text tower   -> projection -> (B, D) unit /

The networks are open_clip's, so weights can be exchanged with it, and with Hugging Face by clip/huggingface.py.
"""

import math
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from open_clip.transformer import text_global_pool
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_model_data_config
from torch import nn
from torchvision.transforms import InterpolationMode
from transformers import AutoModel

from clip.architectures import build_network, load_pretrained, load_weights, make_architecture, with_text_tower
from clip.tokenizer import build_tokenizer, huggingface_tokenizer_config
from common.models.backbone import create_backbone
from common.models.checkpoint_file import load_every_tensor
from common.text.padding import pad

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5: the temperature never falls below 0.01
PROJECTIONS = (  # of the towers, and the temperature: names in open_clip's networks
    "visual.proj",
    "visual.attnpool.c_proj.",
    "visual.head.",
    "text_projection",
    "text.proj.",
    "logit_scale",
    "logit_bias",
)
STATISTICS = {  # mean and standard deviation of each channel, for pixels in [0, 1]
    "clip": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}


class CLIPModel(nn.Module):
    """`CLIPModel("ViT-B/32")`, or from plain values (`CLIPModel(config=...)`), as a checkpoint does.

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
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        if config is None:
            architecture = make_architecture(model_name, image_size, projection_dim, patch_dropout, image_tower)
            tokenizer = {"kind": "clip", "context_length": architecture["text_cfg"]["context_length"]}
            if text_tower:
                architecture = with_text_tower(architecture, text_tower)
                text = architecture["text_cfg"]
                tokenizer = huggingface_tokenizer_config(
                    text_tower, text["context_length"], text["hf_config"]["pad_token_id"]
                )
            if pretrained == "openai":
                architecture["quick_gelu"] = True  # the activation that these weights were trained with
            config = {"architecture": architecture, "sigmoid": sigmoid, "tokenizer": tokenizer}
        self.config = config
        self.network = build_network(config["architecture"], config["sigmoid"])
        self.image_size: int = config["architecture"]["vision_cfg"]["image_size"]
        self.tokenizer = build_tokenizer(config["tokenizer"])
        self.frozen: list[nn.Module] = []
        own_statistics = STATISTICS["clip"]
        if image_tower:
            trunk = create_backbone(image_tower, image_weights, self.image_size)
            built = f"{trunk.pretrained_cfg['architecture']} as open_clip builds it"
            load_every_tensor(self.network.visual.trunk, trunk.state_dict(), image_tower, built)
            data_config = resolve_model_data_config(trunk)
            own_statistics = data_config["mean"], data_config["std"]
        if text_tower:
            self.network.text.transformer = AutoModel.from_pretrained(text_tower, add_pooling_layer=False)
        if pretrained:
            own_statistics = load_pretrained(self.network, model_name, pretrained) or own_statistics
        if "mean" not in config:
            if normalisation not in ("auto", *STATISTICS):
                raise ValueError(f"--normalisation {normalisation}: expected auto, clip or imagenet")
            mean, std = STATISTICS.get(normalisation, own_statistics)
            config |= {"mean": list(map(float, mean)), "std": list(map(float, std))}
        # Preprocessing belongs to the weights: it is done inside, so that no caller can do it wrongly.
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)

    @property
    def logit_scale(self) -> torch.Tensor:
        """ln(1 / temperature), a parameter; `scale` is the factor of cosines."""
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
            raise ValueError(f"image {tuple(image.shape)}: expected (B, 3, {size}, {size})")
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
        features = pooled @ network.text_projection  # (B, D)
        return F.normalize(features, dim=-1) if normalize else features

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """-> (B, T) int64, T = tokens of the longest text, truncated to the context length."""
        return pad(self.tokenizer.encode(texts)[0], self.tokenizer.pad_id).values

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), uint8 0..255 or float 0..1 -> input of the tower."""
        unit = image / 255 if image.dtype == torch.uint8 else image
        return (unit - self.mean) / self.std

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """-> (3, S, S) uint8: shorter side to S, bicubic, then the centred square, identical to OpenAI's."""
        scaled = TF.resize(image.convert("RGB"), self.image_size, InterpolationMode.BICUBIC)
        return TF.pil_to_tensor(TF.center_crop(scaled, self.image_size))

    def freeze_backbone(self) -> None:
        """Train only the projections and the temperature."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(PROJECTIONS))
        self.frozen = [self.network]
        self.train(self.training)

    def lock_image_tower(self) -> None:
        """Freeze the image tower but for the new projection of a timm model (LiT, Zhai et al. 2022)."""
        self.network.lock_image_tower()
        self.frozen = [self.network.visual]
        self.train(self.training)

    def train(self, mode: bool = True) -> "CLIPModel":
        super().train(mode)
        for module in self.frozen:  # no update of BatchNorm statistics, no dropout
            module.eval()
        return self

    def load_checkpoint(self, path: str | Path) -> None:
        """Weights of this architecture: a file of clip/train.py, of open_clip or of OpenAI (TorchScript too)."""
        load_weights(self.network, Path(path))
