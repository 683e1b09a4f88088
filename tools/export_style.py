"""A style encoder for use without this repository.

    python tools/export_style.py --weights checkpoints/best.pth --output exported/style --format onnx
    python tools/export_style.py --weights checkpoints/best.pth --output exported/backbone --format timm

onnx: style_encoder.onnx, image (B, 3, S, S) uint8 -> style (B, S) and what else it was trained to give, and
preprocessing.json, how a file becomes such an image. timm: the backbone alone, without the heads.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn

from common.cli.errors import run_script
from common.images.cache import CACHE_SCALE
from common.models.onnx_export import in_words, random_images, write_onnx
from common.models.timm_folder import write_timm_folder
from common.text.files import write_json
from model import VisionStyleEncoder
from style_encoder import load_encoder

OUTPUTS = ("style", "embed", "pooled", "mask_logits", "mask")


class PlainOutputs(nn.Module):
    """An encoder that gives its outputs as a tuple, those it has."""

    def __init__(self, encoder: VisionStyleEncoder):
        super().__init__()
        self.encoder = encoder
        build = encoder.build
        has = {"embed": build["embed_width"], "pooled": build["pooled_width"]}
        has |= dict.fromkeys(("mask_logits", "mask"), build["embed_width"] and build["predict_mask"])
        self.names = [name for name in OUTPUTS if has.get(name, True)]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.encoder(image)
        return tuple(getattr(output, name) for name in self.names)


def preprocessing(encoder: VisionStyleEncoder, names: list[str]) -> dict[str, Any]:
    """What style_encoder.read_image does, in words that need no code of ours."""
    tower, size = encoder.tower, encoder.tower.image_size
    return {
        "input": {"name": "image", "shape": ["batch", 3, size, size], "type": "uint8", "channels": "RGB"},
        "resize": [
            "decode upright (EXIF orientation applied), 8-bit RGB, transparency on white",
            f"if the shorter side is above {round(CACHE_SCALE * size)} pixels: scale it to that, both sides rounded to "
            "the nearest pixel, bicubic (Pillow's, with antialiasing)",
            f"scale the largest centred square to {size} x {size} pixels, bicubic (likewise)",
        ],
        "size": size,
        "shrink_shorter_side_to": round(CACHE_SCALE * size),
        "interpolation": "bicubic",
        "normalised_inside": True,
        "mean": plain_numbers(tower.mean),
        "std": plain_numbers(tower.std),
        "outputs": names,
    }


def plain_numbers(statistics: torch.Tensor) -> list[float]:
    """(1, 3, 1, 1) float32 -> the three numbers as people write them, 0.485 and not 0.4850000143."""
    return [round(value, 6) for value in statistics.flatten().tolist()]


def export_onnx(encoder: VisionStyleEncoder, folder: Path) -> dict[str, Any]:
    plain, images = PlainOutputs(encoder), random_images(encoder.tower.image_size)
    found = write_onnx(folder / "style_encoder.onnx", plain, images, "image", plain.names)
    write_json(folder / "preprocessing.json", {**preprocessing(encoder, plain.names), "differences": found})
    return found


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="tools/export_style.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="a .pth that train.py wrote, a folder or a name on the Hub")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write")
    parser.add_argument("--format", choices=("onnx", "timm"), default="onnx", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    encoder, _ = load_encoder(args.weights, torch.device("cpu"))
    result: dict[str, Any] = {"output": str(args.output), "format": args.format}
    if args.format == "onnx":
        result["differences"] = export_onnx(encoder, args.output)
        text = f"{args.output}: style_encoder.onnx and preprocessing.json; {in_words(result['differences'])}"
    else:
        tower = encoder.tower
        statistics = plain_numbers(tower.mean), plain_numbers(tower.std)
        write_timm_folder(args.output, tower.backbone, tower.image_size, *statistics)
        text = f'{args.output}: timm.create_model("local-dir:{args.output}", pretrained=True)'
    print(json.dumps(result) if args.json else text)
    return result


if __name__ == "__main__":
    run_script(main)
