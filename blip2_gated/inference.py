"""Answer questions about a picture.

    python blip2_gated/inference.py picture.png "In which style is this picture drawn?" --checkpoint best.pt
    python blip2_gated/inference.py --checkpoint best.pt --export full.pt

image, questions -> answers, and the style head's probabilities. --export writes a file with every weight in it.

what_if: the answer to a question if the gates had seen the style of another picture, or none (gates closed). The
language model sees the same patches each time, so every difference has come through the gates.
"""

import sys
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt

from blip2_gated.checkpoint import load_gated, save_full
from blip2_gated.images import ImageSource, TowerFeatures
from blip2_gated.model import Blip2OPTGated
from common.cli.errors import run_script
from common.cli.paths import find_from_root
from common.cli.tool_parser import tool
from common.text.values import text_of
from common.training.device import choose_device


@tool
def main(
    image: str = "",  # a picture
    questions: list[str] = (),  # an empty one asks for a caption
    *,
    checkpoint: Path,  # best.pt of train.py
    export: Path | None = None,  # write a file that needs no other weights, and answer nothing
    num_beams: PositiveInt = 5,  # of beam search
    blip2: str = "",  # location of BLIP-2's weights, if not as in training
    efficientnet: str = "",  # location of the EfficientNet's weights, if not as in training
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    if not export and not (image and questions):
        raise ValueError("expected a picture and at least one question, or --export FILE")
    questions = [text_of(question) for question in questions]
    model, content = load_gated(find_from_root(str(checkpoint)), choose_device(device), blip2, efficientnet)
    if export:
        save_full(
            export,
            model,
            content["build"],
            **{name: content[name] for name in ("settings", "epoch", "step", "metrics")},
        )
        print(f"{export}: every weight, {export.stat().st_size / 2**20:.0f} MiB")
        return {"export": str(export)}
    pixels = model.prepare([find_from_root(image)])
    answers = model.predict_answers(pixels.expand(len(questions), -1, -1, -1), questions, num_beams=num_beams)
    with torch.no_grad():
        styles = model.style_probabilities(model.features(pixels))
    result = {"image": image, "answers": dict(zip(questions, answers)), "styles": styles}
    if json:
        print(dumps(result, indent=2, ensure_ascii=False))
        return result
    for question, answer in result["answers"].items():
        print(f"{question}  {answer}")
    if styles:
        print("styles: " + ", ".join(f"{label} {share:.0%}" for label, share in list(styles.items())[:3]))
    return result


class StyleAnswer(NamedTuple):
    """The answer under one style. Both dictionaries begin with the most probable label."""

    answer: str
    styles: dict[str, float]  # label: probability by the style head; {} without style features
    names: dict[str, float]  # label: probability that the answer is exactly its name


@torch.no_grad()
def what_if(
    model: Blip2OPTGated, image: ImageSource, question: str, style_image: ImageSource | None = None, **options: Any
) -> list[StyleAnswer]:
    """The answer as it is, and with the style of `style_image`, or with closed gates if it is None.

    options: of generation. ValueError for a model without gates.
    """
    if not model.gates:
        raise ValueError("this BLIP-2 has no gates (model.gating.type none), so style cannot change its answer")
    features = model.features(model.prepare([image]))
    pooled = None if style_image is None else model.features(model.prepare([style_image])).pooled
    answers = []
    for styled in (features, features._replace(pooled=pooled)):
        (answer,) = model.predict_answers(styled, [question], **options)
        names = model.styles.ranked(name_probabilities(model, styled, question).tolist())
        answers.append(StyleAnswer(answer, model.style_probabilities(styled), names))
    return answers


@torch.no_grad()
def name_probabilities(model: Blip2OPTGated, features: TowerFeatures, question: str) -> torch.Tensor:
    """features of one image -> (C,) P(the answer is the style's name), summed over its spellings; the rest of 1 is on
    other answers. Whole names, since styles may share words: Fluent 3D, Fluent flat."""
    styles = model.styles
    if not styles.labels:
        return torch.zeros(0)
    spellings = [(styles.class_ids[label], spelling) for label in styles.labels for spelling in styles.spellings[label]]
    log_probs = model.answer_log_probs(features, question, [spelling for _, spelling in spellings])
    classes = torch.tensor([class_id for class_id, _ in spellings])
    return torch.zeros(len(styles.labels)).index_add(0, classes, log_probs.exp().cpu())


if __name__ == "__main__":
    run_script(main)
