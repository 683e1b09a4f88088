"""InternViT, pixel shuffle, LN-MLP projector and a causal language model: a batch to its loss.

pixel_values (tiles, 3, S, S) -> patches (tiles, N, V) -> 2 x 2 patches a token (tiles, N / 4, 4 V) -> features (M, D)
    -> masked in training (vitp/token_masking.py) -> in place of <IMG_CONTEXT> in input_ids (B, T) -> loss

transformers' InternVLForConditionalGeneration with four additions: masking that shortens sequences, packed samples that
do not attend to each other, logits for labelled tokens alone, and timm backbones of any shape.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, InternVLConfig, InternVLForConditionalGeneration
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import InternVLCausalLMOutputWithPast

from common.models.backbone import split_tokens
from multimodal_utils import drop_tokens, merge_image_tokens, pixel_shuffle
from vitp.token_masking import TokenMasking

VIT, TIMM = "internvl_vision", "timm_wrapper"  # model_type of the vision encoders
PADDING = {"position_ids": 0, "labels": -100, "sample_ids": -1}


class VisualInstructionConfig(InternVLConfig):
    """InternVLConfig that also reads vision towers of timm."""

    sub_configs_defaults = {
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2"),
        "vision_config": SubConfigSpec(AutoConfig, model_type=VIT),
    }


class VisualInstructionModel(InternVLForConditionalGeneration):
    config: VisualInstructionConfig
    masking: TokenMasking | None = None  # set by the training script; never used in evaluation
    freeze_batch_norm = False  # set by the training script: the tower's BatchNorm keeps its statistics

    def train(self, mode: bool = True) -> "VisualInstructionModel":
        super().train(mode)
        for module in self.model.vision_tower.modules() if self.freeze_batch_norm else ():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sample_ids: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> InternVLCausalLMOutputWithPast:
        """With labels (B, T): the loss, summed over labelled tokens and divided by num_items_in_batch or their number.
        Without: as transformers' own.

        pixel_values (tiles, 3, S, S), in reading order; None for text alone. attention_mask (B, T), 1 = real.
        position_ids (B, T) and sample_ids (B, T) describe packed samples: positions from 0 in each, one id for each,
        -1 at padding.
        """
        if labels is None:
            if pixel_values is not None:
                kwargs["mm_encoder_outputs"] = {"image": self.get_image_features(pixel_values)}
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs
            )
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if position_ids is None:
            position_ids = (real.cumsum(1) - 1) * real
        packed = sample_ids is not None
        if not packed:
            sample_ids = real.long() - 1
        embeds, kept = self._embed(input_ids, pixel_values, sample_ids)
        rows = {"position_ids": position_ids, "labels": labels, "sample_ids": sample_ids}
        if self.training and self.masking is not None and self.masking.hide == "drop":
            shorter = drop_tokens(embeds, kept & real.bool())
            embeds, padded = shorter.tokens, shorter.mask == 0
            rows = {
                name: row.gather(1, shorter.positions).masked_fill(padded, PADDING[name]) for name, row in rows.items()
            }
        hidden = self.model(
            inputs_embeds=embeds,
            position_ids=rows["position_ids"],
            use_cache=False,
            **self._attention(rows["sample_ids"], packed),
        ).last_hidden_state
        # Logits at labelled tokens only: images are most of a sequence, and a vocabulary is wide.
        targets = F.pad(rows["labels"][:, 1:], (0, 1), value=-100)
        labelled = targets != -100
        logits = self.lm_head(hidden[labelled]).float()  # (L, vocabulary)
        loss = F.cross_entropy(logits, targets[labelled], reduction="sum")
        count = labelled.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return InternVLCausalLMOutputWithPast(loss=loss / count)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """pixel_values (tiles, 3, S, S) -> pooler_output (tiles, N / 4, D), as transformers calls it."""
        if self.config.vision_config.model_type != TIMM:
            return self.model.get_image_features(pixel_values=pixel_values, return_dict=True, **kwargs)
        tower = self.model.vision_tower
        patches = split_tokens(tower.timm_model, tower(pixel_values, do_pooling=False).last_hidden_state).patches
        shuffled = pixel_shuffle(patches, round(1 / self.config.downsample_ratio))  # (tiles, N / 4, 4 V)
        return BaseModelOutputWithPooling(pooler_output=self.model.multi_modal_projector(shuffled))

    def save_pretrained(self, save_directory, save_original_format: bool = False, **kwargs) -> None:
        """Under the names of state_dict: Trainer loads checkpoints by those, and ignores any other silently."""
        super().save_pretrained(save_directory, save_original_format=save_original_format, **kwargs)

    def _embed(self, input_ids, pixel_values, sample_ids) -> tuple[torch.Tensor, torch.Tensor]:
        """-> embeds (B, T, D) of text and images, kept (B, T) bool: False for tokens that masking drops."""
        embeds = self.get_input_embeddings()(input_ids)
        kept = torch.ones_like(input_ids, dtype=torch.bool)
        if pixel_values is None:
            if self.training:
                # Every process has to use every weight: with DDP, FSDP and ZeRO a batch of text alone would hang.
                blank = embeds.new_zeros(1, 3, *self.config.vision_config.image_size)
                embeds = embeds + 0 * self.get_image_features(blank).pooler_output.sum()
            return embeds, kept
        features = self.get_image_features(pixel_values).pooler_output.to(embeds.dtype)  # (tiles, N / 4, D)
        if self.masking is not None and self.training:
            row = torch.arange(len(input_ids), device=input_ids.device)[:, None] * input_ids.shape[1]
            is_image = input_ids == self.config.image_token_id
            masked, kept[is_image] = self.masking(features.flatten(0, 1), (row + sample_ids)[is_image])
            features = masked.view_as(features)
        return merge_image_tokens(embeds, input_ids, features, self.config.image_token_id).embeds, kept

    def _attention(self, sample_ids: torch.Tensor, packed: bool) -> dict:
        """The mask, in the form that the language model's attention implementation takes.

        Always explicit: transformers would otherwise take gaps in the positions for borders of samples.
        """
        implementation = self.model.language_model.config._attn_implementation
        if implementation.startswith("flash"):
            return sequence_bounds(sample_ids)
        if not packed:
            return {"attention_mask": (sample_ids >= 0).long()}
        mask = packed_attention_mask(sample_ids)
        if implementation == "eager":  # it adds the mask to the scores
            mask = torch.zeros_like(mask, dtype=self.dtype).masked_fill(~mask, torch.finfo(self.dtype).min)
        return {"attention_mask": mask}


# The architecture in a saved config.json: every tool that knows InternVL opens the folder.
VisualInstructionModel.__name__ = InternVLForConditionalGeneration.__name__


def packed_attention_mask(sample_ids: torch.Tensor) -> torch.Tensor:
    """sample_ids (B, T) -> (B, 1, T, T) bool: a token attends to itself and to earlier tokens of its own sample."""
    return (sample_ids[:, :, None] == sample_ids[:, None, :]).tril()[:, None]


def sequence_bounds(sample_ids: torch.Tensor) -> dict:
    """sample_ids (B, T) -> the same for flash attention: where each sample begins in the flattened batch.

    Padding counts as a sample of its own, so that the bounds cover every row.
    """
    batch, length = sample_ids.shape
    unique = sample_ids + 1 + torch.arange(batch, device=sample_ids.device)[:, None] * (length + 1)
    sizes = unique.flatten().unique_consecutive(return_counts=True)[1]
    bounds, longest = F.pad(sizes.cumsum(0), (1, 0)).to(torch.int32), int(sizes.max())
    return {
        "attention_mask": None,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def set_drop_path(model: VisualInstructionModel, rate: float) -> None:
    """Stochastic depth (arXiv 1603.09382) in each residual branch of an InternViT, linear from 0 to `rate`.

    timm backbones are built with theirs. The layer scale behind a branch commutes with the factor 0 or 1 / (1 - p), so
    drop path may stand where transformers keeps the (otherwise empty) dropouts of the branch.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"--drop_path_rate {rate}: expected a value in [0, 1)")
    tower = model.model.vision_tower
    layers = [] if tower.config.model_type == TIMM else tower.encoder.layer
    for layer, chance in zip(layers, torch.linspace(0, rate, len(layers)).tolist()):
        layer.attention.projection_dropout = nn.Sequential(
            nn.Dropout(tower.config.projection_dropout), DropPath(chance)
        )
        layer.dropout = nn.Sequential(nn.Dropout(tower.config.hidden_dropout_prob), DropPath(chance))
