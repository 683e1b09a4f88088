"""A vision tower with a style encoder: what the encoder says about an image becomes tokens behind those of its patches.

pixels (B, 3, H, W) of the processor -> tower -> hidden states (B, N, V) --\\
    \\-> 8-bit RGB of the encoder's size -> style (B, S), embed (B, L, D) -> linear maps -> (B, N + 1 + L, V)

L is 0 for an encoder that was trained without embeds. The encoder sees what the tower sees, normalisation undone and
resized. At equal sizes its style vector is that of the image file. From CLIP's centred 336 pixels to 96 their cosine is
0.99; 0.92 where the processor squeezes images to squares that are none; from 64 up to 96 pixels, blurred, 0.8 to 0.9.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

from model import StyleOutput, VisionStyleEncoder
from multimodal_utils import project_pooled_embed, project_sequence_embed

STYLE_ENCODER = "style_encoder"  # folder of the encoder within that of a model or an adapter


class StyleTowerConfig(PreTrainedConfig):
    """tower: its config; style_width: S; embed_tokens, embed_width: L and D, or 0; image_mean, image_std: with which
    the processor normalises."""

    model_type = "style_tower"
    sub_configs = {"tower": AutoConfig}

    tower: dict | PreTrainedConfig | None = None
    style_width: int = 0
    embed_tokens: int = 0
    embed_width: int = 0
    image_mean: list[float] | tuple[float, ...] = (0.0, 0.0, 0.0)
    image_std: list[float] | tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self, **options: Any) -> None:
        if not isinstance(self.tower, PreTrainedConfig):
            self.tower = AutoConfig.for_model(**{"model_type": "timm_tower", **(self.tower or {})})
        super().__post_init__(**options)

    @property
    def style_tokens(self) -> int:
        return 1 + self.embed_tokens

    @property
    def image_size(self) -> int:
        return self.tower.image_size

    @property
    def patch_size(self) -> int:
        return self.tower.patch_size

    @property
    def hidden_size(self) -> int:
        return self.tower.hidden_size


class StyleProjector(nn.Module):
    """style (B, S), embed (B, L, D) -> tokens of the tower's width (B, 1 + L, V), by a linear map each."""

    def __init__(self, config: StyleTowerConfig):
        super().__init__()
        self.style = nn.Linear(config.style_width, config.hidden_size)
        self.embed = nn.Linear(config.embed_width, config.hidden_size) if config.embed_width else None

    def forward(self, output: StyleOutput) -> torch.Tensor:
        style = output.style * output.style.shape[1] ** 0.5  # of unit length, now about 1 in each dimension
        tokens = project_pooled_embed(style, self.style)[:, None]
        if self.embed is None:
            return tokens
        embed = output.embed if output.mask is None else output.embed * output.mask[..., None]
        return torch.cat([tokens, project_sequence_embed(F.layer_norm(embed, embed.shape[-1:]), self.embed)], 1)


class StyleTower(PreTrainedModel):
    config_class = StyleTowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _supports_sdpa = _supports_flash_attn = True  # as far as the tower does

    def __init__(self, config: StyleTowerConfig):
        super().__init__(config)
        self.tower = AutoModel.from_config(config.tower)
        self.style_projector = StyleProjector(config)
        # In a tuple, where it is no submodule: half precision, quantisation, LoRA, --train_vision_tower and the
        # checkpoints of training pass it by.
        self.encoders: tuple[VisionStyleEncoder, ...] = ()
        self.post_init()

    def get_input_embeddings(self) -> None:
        return None

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> BaseModelOutputWithPooling:
        output = self.tower(pixel_values, **options)
        tokens = self.style_projector(self.encode(pixel_values))
        states = tuple(
            state if state is None else torch.cat([state, tokens.to(state.dtype)], 1) for state in output.hidden_states
        )
        return BaseModelOutputWithPooling(last_hidden_state=states[-1], hidden_states=states)

    @torch.no_grad()
    def encode(self, pixel_values: torch.Tensor) -> StyleOutput:
        """pixel_values (B, 3, H, W), as the processor normalises them, in any precision."""
        (encoder,) = self.encoders
        with torch.autocast(pixel_values.device.type, enabled=False):
            mean, std = (
                pixel_values.new_tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
                for values in (self.config.image_mean, self.config.image_std)
            )
            image, size = pixel_values.float() * std + mean, encoder.tower.image_size
            if image.shape[-2:] != (size, size):
                image = F.interpolate(image, (size, size), mode="bicubic", align_corners=False, antialias=True)
            # Rounded, as an image file is: its histogram of colours has steps there.
            return encoder.to(image.device)((image * 255).round().clamp(0, 255).to(torch.uint8))


def add_style_encoder(model: Any, processor: ProcessorMixin, encoder: VisionStyleEncoder) -> None:
    """Give a LLaVA a style encoder; to one whose tower is a StyleTower, its own. The linear maps of a new one have the
    same random weights each time, so that a base model with them can be known by its weights."""
    inner, width = model.model, encoder.style_head.width
    if not isinstance(inner.vision_tower, StyleTower):
        images, build = processor.image_processor, encoder.build
        config = StyleTowerConfig(
            tower=inner.vision_tower.config,
            style_width=width,
            embed_tokens=build["sequence_length"] if build["embed_width"] else 0,
            embed_width=build["embed_width"],
            image_mean=list(images.image_mean),
            image_std=list(images.image_std),
        )
        with torch.device("meta"):
            tower = StyleTower(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            projector = StyleProjector(config)
        tower.tower, tower.style_projector = inner.vision_tower, projector.to(model.device, model.dtype)
        inner.vision_tower, model.config.vision_config = tower, config
    if width != (trained := model.config.vision_config.style_width):
        raise ValueError(
            f"the style encoder gives vectors of width {width}; {model.name_or_path} was trained on {trained}"
        )
    inner.vision_tower.encoders = (encoder,)


def find_style_encoder(model: nn.Module) -> VisionStyleEncoder | None:
    """That of a LLaVA, with LoRA or without."""
    towers = [module for module in model.modules() if isinstance(module, StyleTower)]
    return towers[0].encoders[0] if towers else None


def save_style_encoder(model: nn.Module, folder: str | Path) -> None:
    """Write the style encoder of a LLaVA, if it has one, into the folder of the model or adapter."""
    if encoder := find_style_encoder(model):
        encoder.save_pretrained(Path(folder) / STYLE_ENCODER)


AutoConfig.register(StyleTowerConfig.model_type, StyleTowerConfig, exist_ok=True)
AutoModel.register(StyleTowerConfig, StyleTower, exist_ok=True)
