"""Export of a style encoder for use without this repository.

    python tools/export_style.py --weights checkpoints/best.pth --output exported/style --format onnx
    python tools/export_style.py --weights checkpoints/best.pth --output exported/backbone --format timm

onnx: style_encoder.onnx, image (B, 3, S, S) uint8 -> style (B, S) and the other outputs that it was trained for, and
preprocessing.json, how a file becomes such an image. timm: the backbone alone, without the heads.
"""

import sys
from json import dumps
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.cache import CACHE_SCALE
from common.models.backbone import write_timm_folder
from common.models.onnx_export import OutputTuple, describe_differences, image_preprocessing, random_images, write_onnx
from common.text.files import write_json
from model import VisionStyleEncoder
from style_encoder import load_encoder

OUTPUTS = ("style", "embed", "pooled", "mask_logits", "mask")


def output_tuple(encoder: VisionStyleEncoder) -> tuple[OutputTuple, list[str]]:
    """-> the encoder with the outputs that it was trained for as a tuple, their names."""
    build = encoder.build
    present = {"embed": build["embed_width"], "pooled": build["pooled_width"]}
    present |= dict.fromkeys(("mask_logits", "mask"), build["embed_width"] and build["predict_mask"])
    names = [name for name in OUTPUTS if present.get(name, True)]

    def outputs(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return attrgetter(*names)(encoder(image))

    return OutputTuple(encoder, outputs), names


def statistics(encoder: VisionStyleEncoder) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the input as people write them: 0.485 and not 0.4850000143."""
    tower = encoder.tower
    mean, std = ([round(value, 6) for value in numbers.flatten().tolist()] for numbers in (tower.mean, tower.std))
    return mean, std


def preprocessing(encoder: VisionStyleEncoder) -> dict[str, Any]:
    """style_encoder.read_image, described."""
    size = encoder.tower.image_size
    limit = round(CACHE_SCALE * size)
    resize = [
        f"if the shorter side is above {limit} pixels: scale it to that, both sides rounded to the nearest pixel, "
        "bicubic (Pillow's, with antialiasing)",
        f"scale the largest centred square to {size} x {size} pixels, bicubic (likewise)",
    ]
    return {**image_preprocessing(size, resize, *statistics(encoder)), "shrink_shorter_side_to": limit}


def export_onnx(encoder: VisionStyleEncoder, folder: Path) -> dict[str, float]:
    module, names = output_tuple(encoder)
    make_input = random_images(encoder.tower.image_size)
    differences = write_onnx(folder / "style_encoder.onnx", module, make_input, "image", names)
    write_json(
        folder / "preprocessing.json", {"image": preprocessing(encoder), "outputs": names, "differences": differences}
    )
    return differences


@tool
def main(
    *,
    weights: str,  # a .pth that train.py wrote, a folder or a name on the Hub
    output: Path,  # the folder to write
    format: Literal["onnx", "timm"] = "onnx",
    json: bool = False,
) -> dict[str, Any]:
    encoder, _ = load_encoder(weights, torch.device("cpu"))
    result: dict[str, Any] = {"output": str(output), "format": format}
    if format == "onnx":
        result["differences"] = export_onnx(encoder, output)
        text = f"{output}: style_encoder.onnx and preprocessing.json; {describe_differences(result['differences'])}"
    else:
        write_timm_folder(output, encoder.tower.backbone, encoder.tower.image_size, *statistics(encoder))
        text = f'{output}: timm.create_model("local-dir:{output}", pretrained=True)'
    print(dumps(result) if json else text)
    return result


if __name__ == "__main__":
    run_script(main)
