"""Counterfactual style: the answer to a question if the gates had seen the style of another picture, or none.

image, question, style of the image itself, of another picture, or none (gates closed)
  -> answer, styles in the features that the gates get, probability of each style's name as the answer

The language model sees the same patches each time, so every difference has come through the gates.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from blip2_gated.model import Blip2OPTGated, ImageSource, TowerFeatures
from common.text.chat_labels import IGNORED


class StyleAnswer(NamedTuple):
    """The answer under one style. Both dictionaries begin with the most probable label."""

    answer: str
    styles: dict[str, float]  # label: probability by the style head; {} without style features
    names: dict[str, float]  # label: probability that the answer is exactly its name


@torch.no_grad()
def what_if(
    model: Blip2OPTGated, image: ImageSource, question: str, style_image: ImageSource | None = None, **options: Any
) -> tuple[StyleAnswer, StyleAnswer]:
    """The answer as it is, and with the style of `style_image`, or with closed gates if it is None.

    options: of generation. ValueError for a model without gates.
    """
    if not model.gates:
        raise ValueError("this BLIP-2 has no gates (model.gating.type none), so style cannot change its answer")
    features = model.features(model.prepare([image]))
    pooled = None if style_image is None else model.features(model.prepare([style_image])).pooled
    original, changed = (
        answer_with_style(model, style, question, **options) for style in (features, features._replace(pooled=pooled))
    )
    return original, changed


@torch.no_grad()
def answer_with_style(model: Blip2OPTGated, features: TowerFeatures, question: str, **options: Any) -> StyleAnswer:
    """features of one image, pooled perhaps of another."""
    (answer,) = model.predict_answers(features, [question], **options)
    probabilities = name_probabilities(model, features, question).tolist()
    return StyleAnswer(answer, model.style_probabilities(features), model.styles.ranked(probabilities))


@torch.no_grad()
def name_probabilities(model: Blip2OPTGated, features: TowerFeatures, question: str) -> torch.Tensor:
    """features of one image -> (C,) P(the answer is the style's name), summed over its spellings; the rest of 1 is on
    other answers. Whole names, since styles may share words: Fluent 3D, Fluent flat."""
    styles = model.styles
    if not styles.labels:
        return torch.zeros(0)
    spellings = [(styles.class_ids[label], spelling) for label in styles.labels for spelling in styles.spellings[label]]
    encoded = [model.prompts.encode(question, spelling) for _, spelling in spellings]
    batch = model.prompts.collate(encoded, device=model.mean.device)
    control = model.control_tokens(features.pooled, batch["question_ids"][:1], batch["question_mask"][:1])
    tokens = model.image_tokens(features.patches, control).expand(len(spellings), -1, -1)
    logits = model.answer_logits(batch["input_ids"], batch["attention_mask"], tokens)  # (N, T, vocabulary)
    losses = F.cross_entropy(logits[:, :-1].float().mT, batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none")
    classes = torch.tensor([class_id for class_id, _ in spellings])
    return torch.zeros(len(styles.labels)).index_add(0, classes, (-losses.sum(1)).exp().cpu())
