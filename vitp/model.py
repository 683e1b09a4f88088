"""A batch to a loss: InternViT -> pixel shuffle -> LN-MLP projector -> causal language model.

pixel_values (tiles, 3, S, S) -> patches (tiles, N, V) -> 2 x 2 patches a token (tiles, N / 4, 4 V) -> features (M, D)
    -> masked in training (vitp.token_masking) -> where input_ids (B, T) hold <IMG_CONTEXT> -> language model -> loss

transformers' InternVLForConditionalGeneration, with four things that it does not do: masking that shortens sequences,
packed samples that do not see each other, logits for learnt tokens alone, and timm backbones of any shape.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn
from transformers import AutoConfig, InternVLConfig, InternVLForConditionalGeneration, TimmWrapperModel
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.internvl.modeling_internvl import InternVLCausalLMOutputWithPast

from common.models.timm_tokens import split_tokens
from multimodal_utils import pixel_shuffle
from vitp.packing import packed_attention_mask, sequence_bounds
from vitp.token_masking import TokenMasking

VIT, TIMM = "internvl_vision", "timm_wrapper"  # model_type of the vision encoders


class VisualInstructionConfig(InternVLConfig):
    """InternVLConfig that also reads back a vision tower which is not InternVL's."""

    sub_configs_defaults = {
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2"),
        "vision_config": SubConfigSpec(AutoConfig, model_type=VIT),
    }


class VisualInstructionModel(InternVLForConditionalGeneration):
    config: VisualInstructionConfig
    masking: TokenMasking | None = None  # set by the training script; never used in evaluation

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
        """With labels (B, T): the loss, summed over learnt tokens and divided by num_items_in_batch or by their number.
        Without: as transformers' own.

        pixel_values (tiles, 3, S, S), in reading order; None for text alone. attention_mask (B, T), 1 = real.
        position_ids (B, T) and sample_ids (B, T) are for packed samples: positions begin at 0 in each sample, ids are
        equal in each, -1 at padding.
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
        if sample_ids is None:
            sample_ids, packed = real.long() - 1, False
        else:
            packed = True
        embeds, kept = self._embed(input_ids, pixel_values, sample_ids)
        rows = {"position_ids": position_ids, "labels": labels, "sample_ids": sample_ids}
        if self.masking is not None and self.training:
            embeds, rows = _leave_out(embeds, rows, kept & real.bool())
        hidden = self.model(
            inputs_embeds=embeds,
            position_ids=rows["position_ids"],
            use_cache=False,
            **self._attention(rows["sample_ids"], packed),
        ).last_hidden_state
        return InternVLCausalLMOutputWithPast(loss=self._loss(hidden, rows["labels"], num_items_in_batch))

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """pixel_values (tiles, 3, S, S) -> pooler_output (tiles, N / 4, D), as transformers calls it."""
        tower = self.model.vision_tower
        if self.config.vision_config.model_type != TIMM:
            return self.model.get_image_features(pixel_values=pixel_values, return_dict=True, **kwargs)
        patches = timm_patches(tower, pixel_values)
        shuffled = pixel_shuffle(patches, round(1 / self.config.downsample_ratio)).flatten(1, 2)
        return BaseModelOutputWithPooling(pooler_output=self.model.multi_modal_projector(shuffled))

    def save_pretrained(self, save_directory, save_original_format: bool = False, **kwargs) -> None:
        """Under the names of state_dict: Trainer loads a checkpoint by those, and passes over any other in silence."""
        super().save_pretrained(save_directory, save_original_format=save_original_format, **kwargs)

    def _embed(self, input_ids, pixel_values, sample_ids) -> tuple[torch.Tensor, torch.Tensor]:
        """-> embeds (B, T, D) with images in their places, kept (B, T) bool, False where masking leaves a token out."""
        embeds = self.get_input_embeddings()(input_ids)
        places = input_ids == self.config.image_token_id
        kept = torch.ones_like(places)
        if pixel_values is None:
            if not self.training:
                return embeds, kept
            # Every process has to use every weight: with DDP, FSDP and ZeRO a batch of text alone would hang the rest.
            blank = embeds.new_zeros(1, 3, *self.config.vision_config.image_size)
            return embeds + 0 * self.get_image_features(blank).pooler_output.sum(), kept
        features = self.get_image_features(pixel_values).pooler_output.flatten(0, 1).to(embeds.dtype)  # (M, D)
        if int(places.sum()) != len(features):
            raise ValueError(
                f"{int(places.sum())} placeholders of id {self.config.image_token_id} for {len(features)} image tokens"
            )
        if self.masking is not None and self.training:
            row = torch.arange(len(input_ids), device=input_ids.device)[:, None] * input_ids.shape[1]
            features, kept[places] = self.masking(features, (row + sample_ids)[places])
        return embeds.masked_scatter(places[..., None], features), kept

    def _attention(self, sample_ids: torch.Tensor, packed: bool) -> dict:
        """What tells the language model who may see whom, in the words of its attention implementation.

        An explicit mask always: left to itself, transformers takes gaps in the positions for borders of samples.
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

    def _loss(self, hidden, labels, num_items_in_batch) -> torch.Tensor:
        """Logits of learnt tokens only: images are most of a sequence, and a vocabulary is wide."""
        targets = F.pad(labels[:, 1:], (0, 1), value=-100)
        learnt = targets != -100
        logits = self.lm_head(hidden[learnt]).float()  # (L, vocabulary)
        total = F.cross_entropy(logits, targets[learnt], reduction="sum")
        return total / (learnt.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


# What a saved config.json names as its architecture: the folder is for every tool that knows InternVL.
VisualInstructionModel.__name__ = InternVLForConditionalGeneration.__name__


def timm_patches(tower: TimmWrapperModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """-> patches (tiles, rows, columns, V) of any timm backbone, without its prefix tokens."""
    patches = split_tokens(tower.timm_model, tower(pixel_values, do_pooling=False).last_hidden_state).patches
    side = round(patches.shape[1] ** 0.5)
    return patches.unflatten(1, (side, side))


def set_drop_path(model: VisualInstructionModel, rate: float) -> None:
    """Stochastic depth (arXiv 1603.09382) in each residual branch of an InternViT, linear from 0 to `rate`.

    timm backbones are built with theirs. A branch's factor of 0 or 1 / (1 - p) passes through the layer scale behind
    it, so it may sit where transformers keeps the (otherwise empty) dropouts of the branch.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"--drop_path_rate {rate}: expected a chance from 0 to below 1")
    tower = model.model.vision_tower
    if tower.config.model_type == TIMM:
        return
    layers = tower.encoder.layer
    for layer, chance in zip(layers, torch.linspace(0, rate, len(layers)).tolist()):
        dropout = tower.config.projection_dropout, tower.config.hidden_dropout_prob
        layer.attention.projection_dropout = nn.Sequential(nn.Dropout(dropout[0]), DropPath(chance))
        layer.dropout = nn.Sequential(nn.Dropout(dropout[1]), DropPath(chance))


def _leave_out(embeds, rows, kept) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Tokens that are not kept (B, T) go from every row; rows that keep fewer than the most are padded at the end."""
    lengths = kept.sum(1)
    longest = int(lengths.max())
    order = (~kept).long().argsort(dim=1, stable=True)[:, :longest]  # the kept ones first, in their order
    embeds = embeds.gather(1, order[..., None].expand(-1, -1, embeds.shape[-1]))
    filled = torch.arange(longest, device=kept.device) < lengths[:, None]
    padding = {"position_ids": 0, "labels": -100, "sample_ids": -1}
    return embeds, {name: row.gather(1, order).masked_fill(~filled, padding[name]) for name, row in rows.items()}
