"""What would the answer be if the gates were told of another picture's style?

image, question, style told: its own, another picture's, or nothing (gates closed)
  -> answer, styles in what was told, probability of each style's name as the answer

The language model sees the same patches each time, so whatever differs has come through the gates.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image

from blip2_gated.model import Blip2OPTGated, Features
from blip2_gated.prompts import IGNORED

Picture = str | Path | Image.Image


class Told(NamedTuple):
    """What came of telling the gates of one style."""

    answer: str
    seen: dict[str, float]  # label: probability by the style head, the likeliest first; {} where nothing was told
    named: dict[str, float]  # label: probability that the answer is its name and no more, the likeliest first


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
    return Told(answer, _ranked(model, seen), _ranked(model, name_probabilities(model, features, question).tolist()))


@torch.no_grad()
def name_probabilities(model: Blip2OPTGated, features: Features, question: str) -> torch.Tensor:
    """features of one image -> (C,) P(the answer is the style's name), over its spellings; what is missing to 1 is on
    other answers. Whole names, since styles may share words: Fluent 3D, Fluent flat."""
    styles, device = model.styles, model.mean.device
    if not styles.labels:
        return torch.zeros(0)
    spelled = [(number, spelling) for label, number in styles.numbers.items() for spelling in styles.spellings[label]]
    batch = model.prompts.collate([model.prompts.encode(question, spelling) for _, spelling in spelled])
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    control = model.control_tokens(features.pooled, batch["question_ids"][:1], batch["question_mask"][:1])
    tokens = model.image_tokens(features.patches, control).expand(len(spelled), -1, -1)
    logits = model.answer_logits(batch["input_ids"], batch["attention_mask"], tokens)  # (N, T, vocabulary)
    losses = F.cross_entropy(logits[:, :-1].float().mT, batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none")
    numbers = torch.tensor([number for number, _ in spelled])
    return torch.zeros(len(styles.labels)).index_add(0, numbers, (-losses.sum(1)).exp().cpu())


def _ranked(model: Blip2OPTGated, shares: list[float]) -> dict[str, float]:
    return dict(sorted(zip(model.styles.labels, shares), key=lambda one: -one[1]))
