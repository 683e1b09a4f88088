"""Answer questions about a picture.

    python blip2_gated/inference.py picture.png "In which style is this picture drawn?" --checkpoint best.pt
    python blip2_gated/inference.py --checkpoint best.pt --export full.pt

image, questions -> answers, and the style head's probabilities. --export writes a file with every weight in it.
"""

import sys
from json import dumps
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from jsonargparse.typing import PositiveInt

from blip2_gated.checkpoint import load_gated, save_full
from common.cli.errors import run_script
from common.cli.tool_parser import tool
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
    model, content = load_gated(checkpoint, choose_device(device), blip2, efficientnet)
    if export:
        metadata = {name: content[name] for name in ("settings", "epoch", "step", "metrics")}
        save_full(export, model, content["build"], **metadata)
        print(f"{export}: every weight, {export.stat().st_size / 2**20:.0f} MiB")
        return {"export": str(export)}
    pixels = model.prepare([image])
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


if __name__ == "__main__":
    run_script(main)
