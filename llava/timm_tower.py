"""Any timm backbone, convolutional ones included, as the vision tower of a LLaVA.

pixels (B, 3, H, W) -> feature map or tokens -> patches (B, N, C), row by row
    [-> linear, softmax, mean over patches -> the tokens of the most probable words, one-hot (B, N, hidden_size)]

With words a projector that is a table of embeddings makes the image tokens words which a language model knows, as the
tags of Tag2Text (Huang et al. 2023, arXiv 2303.05657); llava/build_model.py makes such models.

There is no class token: use it with vision_feature_layer -1 and vision_feature_select_strategy "full". Importing this
module registers the tower with transformers; llava/processor.py does.
"""

from collections.abc import Sequence
from itertools import chain, cycle, islice

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from common.models.backbone import create_backbone, split_tokens


class TimmTowerConfig(PreTrainedConfig):
    """architecture: a timm model; patch_size: pixels of a patch's side; hidden_size: width of its patches. words: the
    tokens of each word, of which there are hidden_size; an image has as many tokens as patches of patch_size."""

    model_type = "timm_tower"

    architecture: str = "tf_efficientnet_lite0"
    image_size: int = 224
    patch_size: int = 32
    hidden_size: int = 1280
    words: Sequence[Sequence[int]] = ()


class TimmTower(PreTrainedModel):
    config_class = TimmTowerConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _supports_sdpa = _supports_flash_attn = True  # timm chooses the kernel of its attention, if it has any

    def __init__(self, config: TimmTowerConfig):
        super().__init__(config)
        self.backbone = create_backbone(config.architecture, image_size=config.image_size)
        self.words = nn.Linear(self.backbone.num_features, len(config.words)) if config.words else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """timm has initialised the weights."""

    def get_input_embeddings(self) -> None:
        return None

    def forward(self, pixel_values: torch.Tensor, **_) -> BaseModelOutputWithPooling:
        patches = self.features(pixel_values) if self.words is None else self.word_tokens(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=patches, hidden_states=(patches,))

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """-> (B, N, num_features)"""
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        return split_tokens(self.backbone, self.backbone.forward_features(pixel_values)).patches

    def word_probabilities(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """-> (B, W)"""
        return self.words(self.features(pixel_values)).softmax(-1).mean(1)

    def word_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """-> (B, N, hidden_size), one-hot: the tokens of the most probable words, repeated if they are few."""
        probabilities = self.word_probabilities(pixel_values)
        count = (self.config.image_size // self.config.patch_size) ** 2
        rows = [
            list(islice(cycle(chain.from_iterable(self.config.words[word] for word in best)), count))
            for best in probabilities.topk(min(count, probabilities.shape[1])).indices.tolist()
        ]
        tokens = torch.tensor(rows, device=probabilities.device)  # (B, N)
        return F.one_hot(tokens, self.config.hidden_size).to(probabilities.dtype)

    def train(self, mode: bool = True) -> "TimmTower":
        """Always in evaluation mode: batch statistics of a few images would replace those of pretraining."""
        return super().train(False)


AutoConfig.register(TimmTowerConfig.model_type, TimmTowerConfig, exist_ok=True)
AutoModel.register(TimmTowerConfig, TimmTower, exist_ok=True)
