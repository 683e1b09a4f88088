"""What would the answer be if the gates were told of another picture's style?

image, question, style told: its own, another picture's, or nothing (gates closed)
  -> answer, styles in what was told, styles that the answer's first word names

The language model sees the same patches each time, so whatever differs has come through the gates.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from blip2_gated.model import Blip2OPTGated, Features

Picture = str | Path | Image.Image


class Told(NamedTuple):
    """What came of telling the gates of one style."""

    answer: str
    seen: dict[str, float]  # label: probability by the style head, the likeliest first; {} where nothing was told
    named: dict[str, float]  # label: probability that the answer begins with a word of it, the likeliest first


@torch.no_grad()
def what_if(
    model: Blip2OPTGated, image: Picture, question: str, style_image: Picture | None = None, **options: Any
) -> tuple[Told, Told]:
    """The answer as it is, and as it would be with the style of `style_image`, or with closed gates where it is None.

    options: those of generating. ValueError for a model without gates, which can be told nothing.
    """
    if not model.gates:
        raise ValueError("this BLIP-2 has no gates (model.gating.type none); there is no style to tell it")
    own = model.features(model.prepare([image]))
    other = None if style_image is None else model.features(model.prepare([style_image])).pooled
    return tell(model, own, question, **options), tell(model, own._replace(pooled=other), question, **options)


@torch.no_grad()
def tell(model: Blip2OPTGated, features: Features, question: str, **options: Any) -> Told:
    """features of one image, pooled perhaps of another."""
    logits = model.style_logits(features.pooled)
    seen = [] if logits is None else logits.softmax(-1)[0].tolist()
    (answer,) = model.predict_answers(features, [question], **options)
    return Told(answer, _ranked(model, seen), _ranked(model, first_word_styles(model, features, question).tolist()))


def first_word_styles(model: Blip2OPTGated, features: Features, question: str) -> torch.Tensor:
    """-> (C,) mass of the answer's first token on the tokens of each style; what is missing to 1 is on other words."""
    batch = model.prompts.collate([model.prompts.encode(question)])
    batch = {name: tensor.to(model.mean.device) for name, tensor in batch.items()}
    control = model.control_tokens(features.pooled, batch["question_ids"], batch["question_mask"])
    tokens = model.image_tokens(features.patches, control)
    logits = model.answer_logits(batch["input_ids"], batch["attention_mask"], tokens)  # (1, T, vocabulary)
    probabilities = logits[0, -1].float().softmax(-1).cpu()
    styles = model.styles
    return torch.zeros(len(styles.labels)).index_add(0, styles.token_classes, probabilities[styles.token_ids])


def _ranked(model: Blip2OPTGated, shares: list[float]) -> dict[str, float]:
    return dict(sorted(zip(model.styles.labels, shares), key=lambda one: -one[1]))
