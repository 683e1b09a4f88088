"""Any timm backbone, convolutional ones included, as the vision tower of a LLaVA.

pixels (B, 3, H, W) -> feature map or tokens -> patches (B, N, C), row by row

There is no class token: use it with vision_feature_layer -1 and vision_feature_select_strategy "full". Importing this
module registers the tower with transformers; llava/processor.py does.
"""

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from common.models.backbone import split_tokens


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
    _supports_sdpa = _supports_flash_attn = True  # timm chooses the kernel of its attention, if it has any

    def __init__(self, config: TimmTowerConfig):
        super().__init__(config)
        self.backbone = timm.create_model(config.architecture, pretrained=False, num_classes=0)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """timm has initialised the weights."""

    def get_input_embeddings(self) -> None:
        return None

    def forward(self, pixel_values: torch.Tensor, **_) -> BaseModelOutputWithPooling:
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        patches = split_tokens(self.backbone, self.backbone.forward_features(pixel_values)).patches
        return BaseModelOutputWithPooling(last_hidden_state=patches, hidden_states=(patches,))

    def train(self, mode: bool = True) -> "TimmTower":
        """Always in evaluation mode: batch statistics of a few images would replace those of pretraining."""
        return super().train(False)


AutoConfig.register(TimmTowerConfig.model_type, TimmTowerConfig, exist_ok=True)
AutoModel.register(TimmTowerConfig, TimmTower, exist_ok=True)
