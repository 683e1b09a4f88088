"""Ask a picture.

    python blip2_gated/inference.py picture.png "In which style is this picture drawn?" --checkpoint best.pt
    python blip2_gated/inference.py --checkpoint best.pt --export whole.pt

image, questions -> answers, and what the EfficientNet sees of styles. --export writes a file with every weight in it.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from blip2_gated.checkpoint import load_gated, save_full
from blip2_gated.model import Blip2OPTGated
from common.cli.errors import run_script
from common.training.device import choose_device


def main(argv: list[str]) -> dict[str, Any]:
    args = read_arguments(argv)
    model, content = load_gated(args.checkpoint, choose_device(args.device), args.blip2, args.efficientnet)
    if args.export:
        facts = {name: content[name] for name in ("settings", "epoch", "step", "metrics")}
        save_full(args.export, model, content["build"], **facts)
        print(f"{args.export}: every weight, {args.export.stat().st_size / 2**20:.0f} MiB")
        return {"export": str(args.export)}
    image = model.prepare([args.image])
    answers = model.predict_answers(
        image.expand(len(args.questions), -1, -1, -1), args.questions, num_beams=args.num_beams
    )
    result = {"image": args.image, "answers": dict(zip(args.questions, answers)), "styles": styles_of(model, image)}
    if args.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return result
    for question, answer in result["answers"].items():
        print(f"{question}  {answer}")
    if result["styles"]:
        seen = ", ".join(f"{label} {share:.0%}" for label, share in list(result["styles"].items())[:3])
        print(f"styles that the EfficientNet sees: {seen}")
    return result


@torch.no_grad()
def styles_of(model: Blip2OPTGated, image: torch.Tensor) -> dict[str, float]:
    """image (1, 3, S, S) -> {label: probability}, the likeliest first; {} without a style head."""
    logits = model.style_logits(model.features(image).pooled)
    if logits is None:
        return {}
    shares = logits.softmax(-1)[0].tolist()
    return dict(sorted(zip(model.styles.labels, shares), key=lambda one: -one[1]))


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, exit_on_error=False
    )
    parser.add_argument("image", nargs="?", help="a picture")
    parser.add_argument("questions", nargs="*", help="what to ask; an empty one asks for a caption")
    parser.add_argument("--checkpoint", required=True, type=Path, help="best.pt of train.py")
    parser.add_argument("--export", type=Path, help="write a file that needs no other weights, and ask nothing")
    parser.add_argument("--num_beams", type=int, default=5, help="beams of the search; default: %(default)s")
    parser.add_argument("--blip2", default="", help="where BLIP-2's weights lie now, if not as in training")
    parser.add_argument("--efficientnet", default="", help="where the EfficientNet's weights lie now")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    try:
        args = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    if not args.export and not (args.image and args.questions):
        raise ValueError("expected a picture and at least one question, or --export FILE")
    if args.num_beams < 1:
        raise ValueError(f"--num_beams {args.num_beams}: expected 1 or more")
    return args


if __name__ == "__main__":
    run_script(main)
