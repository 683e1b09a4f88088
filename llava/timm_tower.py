"""Any timm backbone as the vision tower of a LLaVA, convolutional ones too.

pixels (B, 3, H, W) -> feature map (B, C, h, w) or tokens (B, N, C) -> patches (B, N, C), row by row

It gives patches without a class token: use it with vision_feature_layer -1 and vision_feature_select_strategy "full".
Importing this file is what lets transformers open folders of such models; llava/checkpoint.py does.
"""

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class TimmTowerConfig(PreTrainedConfig):
    """architecture: a timm model; hidden_size: width of its patches; patch_size: pixels of a patch's side."""

    model_type = "timm_tower"

    architecture: str = "tf_efficientnet_lite0"
    image_size: int = 224
    patch_size: int = 32
    hidden_size: int = 1280


class TimmTower(PreTrainedModel):
    config_class = TimmTowerConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _supports_sdpa = _supports_flash_attn = True  # its attention, if it has any, is timm's own affair

    def __init__(self, config: TimmTowerConfig):
        super().__init__(config)
        self.backbone = timm.create_model(config.architecture, pretrained=False, num_classes=0)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """timm has initialised them."""

    def get_input_embeddings(self) -> None:
        return None

    def forward(self, pixel_values: torch.Tensor, **_) -> BaseModelOutputWithPooling:
        features = self.backbone.forward_features(pixel_values)
        if features.ndim == 4:  # (B, C, h, w)
            patches = features.flatten(2).transpose(1, 2)
        else:
            patches = features[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
        return BaseModelOutputWithPooling(last_hidden_state=patches, hidden_states=(patches,))

    def train(self, mode: bool = True) -> "TimmTower":
        """Batch statistics of a few images are not those that the weights were made for; they stand still."""
        return super().train(False)


AutoConfig.register(TimmTowerConfig.model_type, TimmTowerConfig, exist_ok=True)
AutoModel.register(TimmTowerConfig, TimmTower, exist_ok=True)
