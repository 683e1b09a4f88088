"""CLIP: image and text towers with projections to one space.

image (B, 3, S, S) -> visual tower -> projection -> (B, D) unit \\
                                                                 cosine * scale -> logits (B, B) -> loss
tokens (B, T)      -> text tower   -> projection -> (B, D) unit /

The networks are open_clip's, so weights can be exchanged with it, and with Hugging Face by clip/huggingface.py.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, text_global_pool
from timm.data import resolve_model_data_config
from torch import nn

from clip.architectures import (
    OPENAI_NAMES,
    PROJECTIONS,
    build_network,
    canonical_name,
    is_architecture,
    load_text_encoder,
    make_architecture,
)
from clip.preprocessing import STATISTICS, Resize
from clip.pretrained import KIND, choose_weights, load_weights, read_checkpoint, read_file, read_pretrained
from clip.published import preprocessing_of
from clip.tokenizer import build_tokenizer, tokenizer_config
from common.models.backbone import create_backbone
from common.models.build_arguments import building
from common.models.checkpoint_file import load_every_tensor, model_content
from common.models.model_folder import write_model_folder
from common.text.padding import pad

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5: the temperature never falls below 0.01
OVERSHOOT = 0.25  # of pixels beyond [0, 1] by bicubic resizing of floats; a normalised image exceeds it


class CLIPOutput(NamedTuple):
    """Logits of all B images and C texts: cosines times the scale, plus the bias of a model of --loss siglip."""

    logits_per_image: torch.Tensor  # (B, C)
    logits_per_text: torch.Tensor  # (C, B)


class CLIPModel(nn.Module):
    """`CLIPModel("ViT-B/32")`, or from plain values (`CLIPModel(config=...)`), as a checkpoint does.

    model_name: ViT-B/32, ViT-B/16, ViT-L/14, RN50, RN101, small, or another of open_clip. pretrained: None (random),
    'openai', another tag of open_clip, or a file; `CLIPModel.from_pretrained("ViT-B/32")` has OpenAI's. image_tower +
    image_weights: a timm model with timm's weights (True), none, or a file of them; text_tower: a Hugging Face encoder
    by name or folder, with its weights. sigmoid: with a bias; None as the architecture. normalisation: auto (the
    weights' own), clip or imagenet.
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
        sigmoid: bool | None = None,
        normalisation: str = "auto",
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        model_name = canonical_name(model_name)
        weights = read_pretrained(model_name, pretrained) if pretrained else None
        if config is None:
            architecture = make_architecture(
                model_name, image_size, projection_dim, patch_dropout, image_tower, text_tower
            )
            # That of the weights; and from scratch that of OpenAI's networks of these names.
            from_scratch = architecture.get("quick_gelu", model_name in OPENAI_NAMES)
            architecture["quick_gelu"] = weights.record.quick_gelu if weights else from_scratch
            sigmoid = "init_logit_bias" in architecture if sigmoid is None else sigmoid
            tokenizer = tokenizer_config(architecture["text_cfg"])
            config = {"architecture": architecture, "sigmoid": sigmoid, "tokenizer": tokenizer}
        self.config = config = dict(config)
        self.network = build_network(config["architecture"], config["sigmoid"])
        self.image_size: int = config["architecture"]["vision_cfg"]["image_size"]
        self.tokenizer = build_tokenizer(config["tokenizer"])
        self.frozen: list[nn.Module] = []
        own_preprocessing = preprocessing_of({})
        if image_tower:
            trunk = create_backbone(image_tower, image_weights, self.image_size)
            built = f"{trunk.pretrained_cfg['architecture']} as open_clip builds it"
            load_every_tensor(self.network.visual.trunk, trunk.state_dict(), image_tower, built)
            data_config = resolve_model_data_config(trunk)
            own_preprocessing |= {name: list(map(float, data_config[name])) for name in ("mean", "std")}
        if text_tower:
            self.network.text.transformer = load_text_encoder(text_tower)
        if weights:
            load_weights(self.network, weights.weights, weights.source)
            own_preprocessing = weights.record.preprocessing
        if normalisation not in ("auto", *STATISTICS):
            raise ValueError(f"--normalisation {normalisation}: expected auto, clip or imagenet")
        if normalisation != "auto":
            own_preprocessing |= dict(zip(("mean", "std"), map(list, STATISTICS[normalisation])))
        self.config = config = preprocessing_of(own_preprocessing | config) | config
        # Preprocessing belongs to the weights: it is done inside, so that no caller can do it wrongly.
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        self.preprocess = Resize(self.image_size, config["interpolation"], config["resize_mode"])

    @property
    def logit_scale(self) -> torch.Tensor:
        """ln(1 / temperature), a parameter; `scale` is the factor of cosines."""
        return self.network.logit_scale

    @property
    def scale(self) -> torch.Tensor:
        return self.network.logit_scale.clamp(max=math.log(MAX_SCALE)).exp()

    @classmethod
    def open(cls, name: str | Path) -> "tuple[CLIPModel, dict[str, Any]]":
        """A whole model in eval mode, and the metadata of its file.

        name: an architecture with published weights (ViT-B/32 for the usual ones, ViT-B-32:laion2b_s34b_b79k for a tag
        of open_clip, or NAME:FILE), a file of clip/train.py, or a folder or name of read_checkpoint.
        """
        model_name, _, source = str(name).partition(":")
        if is_architecture(canonical_name(model_name)) and not Path(name).exists():
            weights = choose_weights(source or "auto", canonical_name(model_name))
            if weights is None:
                raise ValueError(f"{name}: no weights are published for {model_name}; give a file, {model_name}:FILE")
            return cls(model_name, weights).eval(), {}
        checkpoint = read_checkpoint(name)
        with building(name, checkpoint.config, checkpoint.weights):
            model = cls(config=checkpoint.config)
            load_weights(model.network, checkpoint.weights, name)
        return model.eval(), checkpoint.metadata

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, projection_dim: int | None = None, logit_scale_init_value: float | None = None
    ) -> "CLIPModel":
        """A model with its weights, in eval mode.

        name: as in `open`. projection_dim: an error unless it is that of the weights. logit_scale_init_value: a factor
        of cosines in place of the stored one; up to ln 100 = 4.6 it is read as its logarithm, which is what
        transformers means by it.
        """
        model, _ = cls.open(name)
        width = model.config["architecture"]["embed_dim"]
        if projection_dim not in (None, width):
            raise ValueError(
                f"projection_dim={projection_dim}: the weights of {name} project to {width} dimensions; omit it, or "
                "start from random weights with CLIPModel(model_name, projection_dim=...)"
            )
        if logit_scale_init_value is not None:
            most = math.log(MAX_SCALE)
            value = logit_scale_init_value if logit_scale_init_value <= most else math.log(logit_scale_init_value)
            with torch.no_grad():
                model.logit_scale.fill_(min(value, most))
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json and model.safetensors, for from_pretrained and tools/push_to_hub.py. A folder that transformers
        reads is written by tools/export_clip.py."""
        write_model_folder(folder, model_content(self, KIND, {"config": self.config}))

    def forward(
        self,
        image: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> CLIPOutput:
        """image (B, 3, S, S), tokens (C, T) -> logits_per_image (B, C), logits_per_text (C, B).

        By the names of transformers: pixel_values are pixels that its processor has normalised, input_ids are tokens;
        attention_mask is not needed, as the padding follows the end of the text.
        """
        tokens = input_ids if tokens is None else tokens
        if tokens is None or (image is None) == (pixel_values is None):
            raise ValueError("expected image and tokens, or pixel_values and input_ids")
        if pixel_values is None:
            images = self.encode_image(image)
        else:
            images = F.normalize(self.get_image_features(pixel_values), dim=-1)
        texts = F.normalize(self.get_text_features(tokens, attention_mask), dim=-1)
        logits = self.scale * images @ texts.T
        if self.network.logit_bias is not None:
            logits = logits + self.network.logit_bias
        return CLIPOutput(logits, logits.T)

    def encode_image(self, image: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        """image (B, 3, S, S), uint8 0..255 or float 0..1 -> (B, D), of length 1 unless `normalize` is False."""
        self._check_shape(image)
        return self.network.encode_image(self.normalise(image), normalize=normalize)

    def _check_shape(self, image: torch.Tensor) -> None:
        size = self.image_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"image {tuple(image.shape)}: expected (B, 3, {size}, {size})")

    def encode_text(self, tokens: torch.Tensor | list[str] | str, normalize: bool = True) -> torch.Tensor:
        """tokens (B, T), or the texts themselves -> (B, D), of length 1 unless `normalize` is False."""
        network = self.network
        if not torch.is_tensor(tokens):
            tokens = self.tokenize(tokens).to(self.mean.device)
        if tokens.ndim != 2 or tokens.shape[1] > self.tokenizer.context_length:
            raise ValueError(
                f"tokens {tuple(tokens.shape)}: expected (B, T), T at most {self.tokenizer.context_length}; "
                "tokenize() truncates longer texts"
            )
        text = self.config["architecture"]["text_cfg"]
        length, tower = tokens.shape[1], getattr(network, "text", network)
        sees_padding = text.get("no_causal_mask") or text.get("embed_cls")
        if sees_padding or not hasattr(tower, "token_embedding"):
            missing = self.tokenizer.context_length - length if sees_padding else 0
            return network.encode_text(F.pad(tokens, (0, missing), value=self.tokenizer.pad_id), normalize=normalize)
        # As open_clip's own, but for T below the context length, which the causal mask allows.
        dtype = tower.transformer.get_cast_dtype()
        hidden = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))  # (B, T, width)
        pooled = text_global_pool(hidden, tokens, text.get("pool_type", "argmax"), text.get("eos_id", 2))
        projection = tower.text_projection
        features = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection  # (B, D)
        return F.normalize(features, dim=-1) if normalize else features

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """As in transformers: pixels normalised already, or uint8 -> (B, D), not of length 1."""
        self._check_shape(pixel_values)
        is_raw = pixel_values.dtype == torch.uint8
        return self.network.encode_image(self.normalise(pixel_values) if is_raw else pixel_values)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """As in transformers: tokens -> (B, D), not of length 1; attention_mask as for forward."""
        if attention_mask is not None and (attention_mask.diff(dim=1) > 0).any():
            raise ValueError("attention_mask: padding on the left; this model takes it on the right")
        return self.encode_text(input_ids, normalize=False)

    def tokenize(self, texts: list[str] | str) -> torch.Tensor:
        """-> (B, T) int64, T = tokens of the longest text, truncated to the context length; of a single text (1, T)."""
        texts = [texts] if isinstance(texts, str) else texts
        return pad(self.tokenizer.encode(texts)[0], self.tokenizer.pad_id).values

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), uint8 0..255 or float 0..1 -> input of the tower."""
        if image.dtype == torch.uint8:
            return (image / 255 - self.mean) / self.std
        lowest, highest = map(float, image.aminmax())
        if lowest < -OVERSHOOT or highest > 1 + OVERSHOOT:
            reason = "divide by 255 or give uint8" if lowest >= 0 else "the model normalises them itself: omit that"
            raise ValueError(f"image: pixels from {lowest:.2f} to {highest:.2f}, expected 0 to 1; {reason}")
        return (image - self.mean) / self.std

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
        """Weights of this architecture: a file of clip/train.py, of open_clip or of OpenAI (TorchScript too).

        Activation and channel statistics come with them where the file says which.
        """
        pretrained = read_file(Path(path))
        load_weights(self.network, pretrained.weights, path)
        if not (record := pretrained.record):
            return
        if record.quick_gelu != self.config["architecture"].get("quick_gelu", False):
            self.config["architecture"] = {**self.config["architecture"], "quick_gelu": record.quick_gelu}
            for block in self.network.modules():
                if isinstance(block, ResidualAttentionBlock):
                    block.mlp.gelu = QuickGELU() if record.quick_gelu else nn.GELU()
        self.config |= record.preprocessing
        for buffer, name in ((self.mean, "mean"), (self.std, "std")):
            buffer.copy_(torch.tensor(self.config[name]).view_as(buffer))
        self.preprocess = Resize(self.image_size, self.config["interpolation"], self.config["resize_mode"])
