"""BLIP-2 whose Q-Former is told the style: an EfficientNet's feature and the question gate what it takes of the image.

image (B, 3, S, S) --> vision tower --> patches (B, N, V) ------------------v
               \\--> EfficientNet --> style (B, D) --> PromptMapper --> gated Q-Former --> (B, Q, L) --> OPT --> logits
question (B, W) --------------------------------------^     control (B, M, D)

Vision tower, language model and EfficientNet stand still; gates, mapper, projections, style head and LoRA learn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from blip2_gated.efficientnet import EfficientNetAdapter
from blip2_gated.gates import Gate, add_gates
from blip2_gated.lora import add_lora, lora_layers, lora_parameters
from blip2_gated.prompt_mapper import PromptMapper
from blip2_gated.prompts import TEMPLATE, PromptEncoder
from blip2_gated.style_vocabulary import StyleVocabulary
from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.io import open_image

TRAINED = ("gates", "qformer", "all")  # what of BLIP-2 learns besides what is added: nothing, its Q-Former, everything
VQA_OPTIONS = {"num_beams": 5, "max_new_tokens": 10, "length_penalty": 0.0}  # of BLIP-2's own evaluation


class Features(NamedTuple):
    """What the two frozen towers say of an image; may be kept and used again."""

    patches: torch.Tensor  # (B, N, V)
    pooled: torch.Tensor | None  # (B, P); None without an EfficientNet, or to keep the gates closed


class GatedOutput(NamedTuple):
    logits: torch.Tensor  # (B, T, vocabulary)
    style_logits: torch.Tensor | None  # (B, C) styles that the EfficientNet sees
    control: torch.Tensor | None  # (B, M, D) what the gates were told


class Blip2OPTGated(nn.Module):
    """blip2, tokenizer: from blip2_gated.backbone. efficientnet None: plain BLIP-2, for comparison, with or without
    LoRA. gating: type (film, gate, kv), per_head, init_scale. mapper: num_tokens, hidden, dropout. lora: rank, alpha,
    dropout, or None. elsewhere: parts ('blip2', 'efficientnet') whose frozen weights a name or file brings back, so
    that state_dict() leaves them out.
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
        elsewhere: Sequence[str] = (),
    ):
        super().__init__()
        if trained not in TRAINED:
            raise ValueError(f"--model.train {trained}: expected {', '.join(TRAINED)}")
        self.blip2, self.styles, self.trained = blip2, styles, trained
        config = blip2.config
        self.image_size: int = config.vision_config.image_size
        self.num_query_tokens: int = config.num_query_tokens
        self.prompts = PromptEncoder(tokenizer, config.image_token_index, self.num_query_tokens, template, max_tokens)
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).view(1, 3, 1, 1), persistent=False)
        blip2.vision_model.requires_grad_(trained == "all")
        blip2.language_model.requires_grad_(trained == "all")
        for part in (blip2.qformer, blip2.language_projection):
            part.requires_grad_(trained != "gates")
        blip2.query_tokens.requires_grad_(trained != "gates")
        self.efficientnet = self.mapper = self.style_head = None
        self.gates: list[Gate] = []  # a plain list: they belong to the Q-Former
        if efficientnet is not None:
            self._add_style(efficientnet, gating or {}, mapper or {})
        if lora:
            add_lora(blip2.qformer, **lora)
        for learning in [*(gate.parameters() for gate in self.gates), lora_parameters(blip2.qformer)]:
            for parameter in learning:
                parameter.requires_grad_(True)
        kept = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        places = tuple(f"{part}." if part == "blip2" else f"{part}.backbone." for part in elsewhere)
        self.elsewhere = {name for name in self.state_dict() if name.startswith(places) and name not in kept}
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_post_hook(_allow_left_out)

    def _add_style(self, efficientnet: dict[str, Any], gating: dict[str, Any], mapper: dict[str, Any]) -> None:
        qformer = self.blip2.config.qformer_config
        expected = efficientnet.pop("output_dim", 0) or qformer.hidden_size
        if expected != qformer.hidden_size:
            raise ValueError(
                f"--model.efficientnet.output_dim {expected}: the Q-Former's width is {qformer.hidden_size}; "
                "they have to be equal (0 takes the Q-Former's)"
            )
        self.efficientnet = EfficientNetAdapter(
            **efficientnet, width=expected, mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD
        )
        words = self.blip2.language_model.get_input_embeddings().embedding_dim
        self.mapper = PromptMapper(expected, words, expected, **mapper)
        if self.styles.labels:
            self.style_head = nn.Linear(self.efficientnet.pooled_width, len(self.styles.labels))
        self.gates = add_gates(self.blip2.qformer, control_width=expected, **gating)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        question_ids: torch.Tensor,
        question_mask: torch.Tensor,
        image: torch.Tensor | None = None,
        features: Features | None = None,
    ) -> GatedOutput:
        """image (B, 3, S, S), uint8 0..255 or float 0..1, or `features` of it; texts from PromptEncoder.collate."""
        features = features or self.features(image)
        control = self.control_tokens(features.pooled, question_ids, question_mask)
        logits = self.answer_logits(input_ids, attention_mask, self.image_tokens(features.patches, control))
        return GatedOutput(logits, self.style_logits(features.pooled), control)

    def answer_logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, image_tokens: torch.Tensor
    ) -> torch.Tensor:
        """input_ids, attention_mask (B, T), image_tokens (B, Q, L) -> (B, T, vocabulary)."""
        embeds = self._embeds(input_ids, image_tokens)
        return self.blip2.language_model(inputs_embeds=embeds, attention_mask=attention_mask).logits

    def features(self, image: torch.Tensor) -> Features:
        """image (B, 3, S, S) -> what the towers say of it; with gradient only where the vision tower learns."""
        size = self.image_size
        if image.ndim != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"image {tuple(image.shape)}: this model reads (B, 3, {size}, {size})")
        pixel_values = self.normalise(image)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained == "all"):
            patches = self.blip2.vision_model(pixel_values=pixel_values).last_hidden_state
        return Features(patches, self.efficientnet.pooled(pixel_values) if self.efficientnet else None)

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 0..255 or float 0..1 -> BLIP-2's (CLIP's) statistics."""
        return ((image / 255 if image.dtype == torch.uint8 else image) - self.mean) / self.std

    def control_tokens(
        self, pooled: torch.Tensor | None, question_ids: torch.Tensor, question_mask: torch.Tensor
    ) -> torch.Tensor | None:
        """pooled (B, P), the question alone (B, W) -> (B, M, D); None where there are no gates, or nothing to tell."""
        if self.mapper is None or pooled is None:
            return None
        words = self.blip2.language_model.get_input_embeddings()(question_ids).detach()
        return self.mapper(self.efficientnet(pooled.float()), words.float(), question_mask)

    def style_logits(self, pooled: torch.Tensor | None) -> torch.Tensor | None:
        """pooled (B, P) -> (B, C) styles that the EfficientNet sees; None where styles are not known."""
        if self.style_head is None or pooled is None:
            return None
        return self.style_head(self.efficientnet.normalise(pooled.float()))

    def image_tokens(self, patches: torch.Tensor, control: torch.Tensor | None) -> torch.Tensor:
        """patches (B, N, V) -> (B, Q, L), the image as the language model reads it."""
        queries = self.blip2.query_tokens.expand(len(patches), -1, -1)
        told = {} if control is None else {"control_tokens": control}
        read = self.blip2.qformer(query_embeds=queries, encoder_hidden_states=patches.to(queries.dtype), **told)
        return self.blip2.language_projection(read.last_hidden_state)

    def _embeds(self, input_ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """Words' embeddings with the image's tokens in their places -> (B, T, L)."""
        places = input_ids == self.blip2.config.image_token_index
        counts = places.sum(1)
        if bool((counts != self.num_query_tokens).any()):
            raise ValueError(
                f"input_ids hold {counts.tolist()} image tokens per row; each needs {self.num_query_tokens}, "
                "one per query of the Q-Former"
            )
        embeds = self.blip2.language_model.get_input_embeddings()(input_ids)
        return embeds.masked_scatter(places.unsqueeze(-1), image_tokens.to(embeds.dtype))

    def prepare(self, images: torch.Tensor | Sequence[str | Path | Image.Image]) -> torch.Tensor:
        """Files or PIL images -> (B, 3, S, S) uint8, as in training: the whole picture, squeezed to a square."""
        if torch.is_tensor(images):
            return images.to(self.mean.device)
        opened = [image.convert("RGB") if isinstance(image, Image.Image) else open_image(image) for image in images]
        kept = [np.asarray(fit_shorter_side(image, round(CACHE_SCALE * self.image_size))) for image in opened]
        return torch.stack([squeeze(pixels, self.image_size) for pixels in kept]).to(self.mean.device)

    @torch.no_grad()
    def generate(
        self,
        images: torch.Tensor | Sequence[str | Path | Image.Image] | Features,
        questions: Sequence[str],
        **options: Any,
    ) -> list[str]:
        """One text per image and question, up to its first newline; an empty question asks for a caption.

        options: those of transformers' generate, num_beams for one.
        """
        if isinstance(images, Features):
            features, count = images, len(images.patches)
        else:
            features, count = None, len(images)
        if count != len(questions) or not questions:
            raise ValueError(f"{count} images, {len(questions)} questions: each image needs one")
        was_training = self.training
        self.eval()
        features = features or self.features(self.prepare(images))
        batch = self.prompts.collate([self.prompts.encode(question) for question in questions], left=True)
        batch = {name: tensor.to(self.mean.device) for name, tensor in batch.items()}
        control = self.control_tokens(features.pooled, batch["question_ids"], batch["question_mask"])
        found = self.blip2.language_model.generate(
            inputs_embeds=self._embeds(batch["input_ids"], self.image_tokens(features.patches, control)),
            attention_mask=batch["attention_mask"],
            pad_token_id=self.prompts.pad,
            eos_token_id=[self.prompts.newline, self.prompts.tokenizer.eos_token_id],
            **{"do_sample": False, "min_new_tokens": 1, "max_new_tokens": 30, **options},
        )
        self.train(was_training)
        return self.prompts.decode(found)

    def predict_answers(
        self,
        images: torch.Tensor | Sequence[str | Path | Image.Image] | Features,
        questions: Sequence[str],
        **options: Any,
    ) -> list[str]:
        """Short answers, searched as BLIP-2 does for visual questions: 5 beams, at most 10 tokens, length penalty 0."""
        options = {**VQA_OPTIONS, **options}
        if options["num_beams"] == 1:
            del options["length_penalty"]  # transformers warns where it has no effect
        return self.generate(images, questions, **options)

    def train(self, mode: bool = True) -> "Blip2OPTGated":
        """What does not learn stays in eval(): dropout, drop path and BatchNorm statistics stand still."""
        super().train(mode)
        if self.trained != "all":
            self.blip2.vision_model.eval()
            self.blip2.language_model.eval()
        if self.trained == "gates":
            self.blip2.eval()
            for added in [*self.gates, *lora_layers(self.blip2.qformer)]:
                added.train(mode)
        return self


def squeeze(pixels: np.ndarray, size: int) -> torch.Tensor:
    """pixels (H, W, 3) uint8 -> (3, size, size) uint8. BLIP-2 sees the whole picture, without its proportions."""
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)


def _leave_out(model: Blip2OPTGated, state: dict[str, torch.Tensor], prefix: str, _) -> None:
    for name in model.elsewhere:
        state.pop(prefix + name, None)


def _allow_left_out(model: Blip2OPTGated, found: Any) -> None:
    missing = [name for name in found.missing_keys if not name.endswith(tuple(model.elsewhere))]
    found.missing_keys[:] = missing
