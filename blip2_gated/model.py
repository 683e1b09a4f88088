"""BLIP-2 with style gates: an EfficientNet's feature and the question modulate what the Q-Former reads from the image.

image (B, 3, S, S) --> vision tower --> patches (B, N, V) ------------------v
               \\--> EfficientNet --> style (B, D) --> PromptMapper --> gated Q-Former --> (B, Q, L) --> OPT --> logits
question (B, W) --------------------------------------^     control (B, M, D)

Vision tower, language model and EfficientNet are frozen; gates, mapper, projections, style head and LoRA are trainable.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from blip2_gated.efficientnet import EfficientNetAdapter
from blip2_gated.gates import Gate, PromptMapper, add_gates, add_lora
from blip2_gated.generation import GenerationMixin
from blip2_gated.images import TowerFeatures, outside_unit_range
from blip2_gated.pretrained import PretrainedMixin
from blip2_gated.prompts import TEMPLATE, PromptEncoder
from blip2_gated.style_vocabulary import StyleVocabulary
from multimodal_utils import merge_image_tokens, project_sequence_embed


class GatedOutput(NamedTuple):
    logits: torch.Tensor  # (B, T, vocabulary)
    style_logits: torch.Tensor | None  # (B, C) of the EfficientNet's style head
    control: torch.Tensor | None  # (B, M, D) input of the gates


class Blip2OPTGated(GenerationMixin, PretrainedMixin, nn.Module):
    """blip2, tokenizer: from blip2_gated.backbone. efficientnet: arguments of EfficientNetAdapter,
    and output_dim; None: plain BLIP-2, for comparison, with or without LoRA. gating: kind (film, gate, kv), per_head,
    init_scale. mapper: num_tokens, hidden, dropout. lora: rank, alpha, dropout, or None. external: parts ('blip2',
    'efficientnet') whose frozen weights come from a hub name or file, so that state_dict() does not hold them.
    """

    def __init__(
        self,
        blip2: Blip2ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        styles: StyleVocabulary,
        efficientnet: dict[str, Any] | None = None,
        gating: dict[str, Any] | None = None,
        mapper: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        trained: str = "gates",
        template: str = TEMPLATE,
        max_tokens: int = 48,
        external: Sequence[str] = (),
    ):
        super().__init__()
        frozen_parts = {"gates": [blip2], "qformer": [blip2.vision_model, blip2.language_model], "all": []}
        if trained not in frozen_parts:
            raise ValueError(f"--model.train {trained}: expected {', '.join(frozen_parts)}")
        self.blip2, self.styles, self.trained, self.frozen_parts = blip2, styles, trained, frozen_parts[trained]
        config = blip2.config
        self.image_size: int = config.vision_config.image_size
        self.prompts = PromptEncoder(tokenizer, config.image_token_index, config.num_query_tokens, template, max_tokens)
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1), persistent=False)
        blip2.requires_grad_(True)
        for part in self.frozen_parts:
            part.requires_grad_(False)
        self.efficientnet = self.mapper = self.style_head = None
        self.gates: list[Gate] = []  # a plain list: they are modules of the Q-Former
        if efficientnet is not None:
            self._add_style(gating or {}, mapper or {}, **efficientnet)
        self.lora_layers = tuple(add_lora(blip2.qformer, **lora)) if lora else ()  # a tuple, for the same reason
        nn.ModuleList(self.gates).requires_grad_(True)  # peft has frozen them
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        prefixes = tuple(f"{part}." if part == "blip2" else f"{part}.backbone." for part in external)
        self.external_weights = {name for name in self.state_dict() if name.startswith(prefixes)} - trainable
        self.register_state_dict_post_hook(_drop_external)
        self.register_load_state_dict_post_hook(_allow_missing_external)

    def _add_style(
        self,
        gating: dict[str, Any],
        mapper: dict[str, Any],
        name: str,
        pretrained: bool | str,
        image_size: int | None = None,
        output_dim: int = 0,
        style_encoder: dict[str, Any] | None = None,
    ) -> None:
        width = self.blip2.config.qformer_config.hidden_size
        if output_dim not in (0, width):
            raise ValueError(
                f"--model.efficientnet.output_dim {output_dim}: the Q-Former's width is {width}; "
                "they have to be equal (0 takes the Q-Former's)"
            )
        self.efficientnet = EfficientNetAdapter(
            name, pretrained, width, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, image_size, style_encoder
        )
        self.mapper = PromptMapper(
            width, self.blip2.language_model.get_input_embeddings().embedding_dim, width, **mapper
        )
        if self.styles.labels:
            self.style_head = nn.Linear(self.efficientnet.pooled_width, len(self.styles.labels))
        self.gates = add_gates(self.blip2.qformer, control_width=width, **gating)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        question_ids: torch.Tensor,
        question_mask: torch.Tensor,
        image: torch.Tensor | None = None,
        features: TowerFeatures | None = None,
    ) -> GatedOutput:
        """image (B, 3, S, S), uint8 0..255 or float 0..1, or `features` of it; texts from PromptEncoder.collate."""
        features = features or self.features(image)
        control = self.control_tokens(features.pooled, question_ids, question_mask)
        return GatedOutput(
            self.answer_logits(input_ids, attention_mask, self.image_tokens(features.patches, control)),
            self.style_logits(features.pooled),
            control,
        )

    def answer_logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, image_tokens: torch.Tensor
    ) -> torch.Tensor:
        """input_ids, attention_mask (B, T), image_tokens (B, Q, L) -> (B, T, vocabulary)."""
        return self.blip2.language_model(
            inputs_embeds=self._embeds(input_ids, image_tokens), attention_mask=attention_mask
        ).logits

    def features(self, image: torch.Tensor, pooled: torch.Tensor | None = None) -> TowerFeatures:
        """image (B, 3, S, S), uint8 0..255 or float 0..1 -> outputs of the towers; `pooled`, if cached."""
        if outside_unit_range(image):
            raise ValueError(
                f"image: values from {image.min():.3g} to {image.max():.3g}, expected uint8 0..255 or float 0..1; "
                "pixels that are normalised already would be normalised twice"
            )
        return self.tower_features(self.normalise(image), pooled)

    def tower_features(self, pixel_values: torch.Tensor, pooled: torch.Tensor | None = None) -> TowerFeatures:
        """pixel_values (B, 3, S, S), normalised -> outputs of the towers; with gradient only if the vision tower is
        trainable."""
        size = self.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size):
            raise ValueError(f"image {tuple(pixel_values.shape)}: this model reads (B, 3, {size}, {size})")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained == "all"):
            patches = self.blip2.vision_model(pixel_values=pixel_values).last_hidden_state
        if pooled is None and self.efficientnet:
            pooled = self.efficientnet.pooled(pixel_values)
        return TowerFeatures(patches, pooled)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 0..255 or float 0..1 -> BLIP-2's (CLIP's) statistics."""
        return ((image / 255 if image.dtype == torch.uint8 else image) - self.mean) / self.std

    def control_tokens(
        self, pooled: torch.Tensor | None, question_ids: torch.Tensor, question_mask: torch.Tensor
    ) -> torch.Tensor | None:
        """pooled (B, P), the question alone (B, W) -> (B, M, D), with a style encoder (B, M + 1, D); None without gates
        or style features."""
        if self.mapper is None or pooled is None:
            return None
        words = self.blip2.language_model.get_input_embeddings()(question_ids).detach()
        control = self.mapper(self.efficientnet(pooled.float()), words.float(), question_mask)
        token = self.efficientnet.style_token(pooled.float())
        return control if token is None else torch.cat([control, token], 1)

    def style_logits(self, pooled: torch.Tensor | None) -> torch.Tensor | None:
        """pooled (B, P) -> (B, C) of the style head; None if styles are unknown."""
        if self.style_head is None or pooled is None:
            return None
        return self.style_head(self.efficientnet.scaled(pooled.float()))

    def style_probabilities(self, features: TowerFeatures) -> dict[str, float]:
        """features of one image -> {label: probability by the style head}, the most probable first; {} without one."""
        logits = self.style_logits(features.pooled)
        return {} if logits is None else self.styles.ranked(logits.softmax(-1)[0].tolist())

    def image_tokens(self, patches: torch.Tensor, control: torch.Tensor | None) -> torch.Tensor:
        """patches (B, N, V), control (B, M, D) -> (B, Q, L), the image in the language model's space."""
        queries = self.blip2.query_tokens.expand(len(patches), -1, -1)
        output = self.blip2.qformer(
            query_embeds=queries,
            encoder_hidden_states=patches.to(queries.dtype),
            **({} if control is None else {"control_tokens": control}),
        )
        return project_sequence_embed(output.last_hidden_state, self.blip2.language_projection)

    def _embeds(self, input_ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """Embeddings of the words, with the image tokens at their placeholders -> (B, T, L). Padding stays in place."""
        image_token = self.blip2.config.image_token_index
        # Any embedding will do where the image goes; the image token's id may be above the last of the table.
        words = input_ids.masked_fill(input_ids == image_token, self.prompts.pad)
        embeds = self.blip2.language_model.get_input_embeddings()(words)
        return merge_image_tokens(embeds, input_ids, image_tokens, image_token).embeds

    def train(self, mode: bool = True) -> "Blip2OPTGated":
        """Frozen parts stay in eval(), without dropout, drop path and updates of BatchNorm statistics."""
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
        for added in [*self.gates, *self.lora_layers]:
            added.train(mode)
        return self


def _drop_external(model: Blip2OPTGated, state: dict[str, torch.Tensor], prefix: str, _) -> None:
    for name in model.external_weights:
        state.pop(prefix + name, None)


def _allow_missing_external(model: Blip2OPTGated, result: Any) -> None:
    result.missing_keys[:] = [name for name in result.missing_keys if not name.endswith(tuple(model.external_weights))]
