"""Export of a CLIP for use without this repository.

python tools/export_clip.py --weights model-checkpoint/best_model.pth --output exported/clip             onnxruntime
python tools/export_clip.py --weights ... --output exported/clip_hf --format transformers        transformers' CLIPModel
python tools/export_clip.py --weights ... --output exported/tower --format timm      the image tower, where it is timm's

onnx: image.onnx, (B, 3, S, S) uint8 -> vectors (B, D) unit; text.onnx, tokens (B, T) int64 -> vectors (B, D) unit;
tokenizer.json, texts -> such tokens; preprocessing.json, files -> such images, and the scale and bias of the logits.
"""

import sys
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any, Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from tokenizers import Tokenizer as BackendTokenizer

from clip.checkpoint import load_clip
from clip.huggingface import transformers_tokenizer, write_huggingface
from clip.model import CLIPModel
from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.models.backbone import write_timm_folder
from common.models.onnx_export import OutputTuple, describe_differences, image_preprocessing, random_images, write_onnx
from common.text.files import write_atomically, write_json


def portable_tokenizer(model: CLIPModel) -> BackendTokenizer:
    """texts -> the tokens of model.tokenize, all padded to the context length.

    The CLIP vocabulary is read as transformers does, which differs only for broken Unicode and HTML entities:
    open_clip mends these first.
    """
    config, pad_id = model.config["tokenizer"], model.tokenizer.pad_id
    length = config["context_length"]
    if config["kind"] == "clip":
        tokenizer = transformers_tokenizer(length).backend_tokenizer
    else:
        tokenizer = BackendTokenizer.from_str(config["tokenizer_json"])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id), length=length)
    return tokenizer


def example_tokens(tokenizer: BackendTokenizer) -> Callable[[int], torch.Tensor]:
    """-> make_input of write_onnx: texts of different lengths, one of them too long."""
    texts = ["a red house", "two cats asleep under a tree in the garden", "a", "word " * 200, "the sea"]
    return lambda batch: torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts[-batch:])])


def preprocessing(model: CLIPModel) -> dict[str, Any]:
    """CLIPModel.preprocess and the logits, described."""
    size, config = model.image_size, model.config
    bias: Any = model.network.logit_bias
    how = f"{config['interpolation']} (Pillow's, with antialiasing)"
    resize = {
        "shortest": [
            f"scale the shorter side to {size} pixels, the other in proportion and rounded down, {how}",
            f"cut out the centred {size} x {size} pixels: left = round((width - {size}) / 2), top likewise",
        ],
        "squash": [f"scale to {size} x {size} pixels, whatever the shape, {how}"],
        "longest": [f"scale the longer side to {size} pixels, {how}", "pad to a square with black, the image centred"],
    }[config["resize_mode"]]
    image = image_preprocessing(size, resize, config["mean"], config["std"])
    # Before and behind tokenizer.json: open_clip's cleaning of texts, and a token to replace by 0.
    cleaning = {
        name: value for name in ("clean", "zeroed_id") if (value := config["tokenizer"].get(name)) not in ("", None)
    }
    return {
        "image": image | {"interpolation": config["interpolation"]},
        "text": {
            "name": "tokens",
            "shape": ["batch", model.tokenizer.context_length],
            "type": "int64",
            "tokenizer": "tokenizer.json",
            **cleaning,
        },
        "logits": "scale * image_vectors @ text_vectors.T + bias",
        "scale": model.scale.item(),
        "bias": 0.0 if bias is None else bias.item(),
    }


def export_onnx(model: CLIPModel, folder: Path) -> dict[str, float]:
    """-> for each file, the largest difference from PyTorch as a share of the largest value."""
    tokenizer = portable_tokenizer(model)
    towers = {
        "image": (OutputTuple(model, model.encode_image), random_images(model.image_size), "image"),
        "text": (OutputTuple(model, model.encode_text), example_tokens(tokenizer), "tokens"),
    }
    differences = {
        name: write_onnx(folder / f"{name}.onnx", *tower, ["vectors"])["vectors"] for name, tower in towers.items()
    }
    with write_atomically(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True).encode())
    write_json(folder / "preprocessing.json", {**preprocessing(model), "differences": differences})
    return differences


@tool
def main(
    *,
    weights: str,  # a file of train.py, a folder, or a name on the Hub
    output: Path,  # the folder to write
    format: Literal["onnx", "transformers", "timm"] = "onnx",
    json: bool = False,
) -> dict[str, Any]:
    model, _ = load_clip(weights)
    result: dict[str, Any] = {"output": str(output), "format": format}
    if format == "onnx":
        result["differences"] = export_onnx(model, output)
        text = (
            f"{output}: image.onnx, text.onnx, tokenizer.json, preprocessing.json; "
            f"{describe_differences(result['differences'])}"
        )
    elif format == "transformers":
        write_huggingface(model, output)
        text = f'{output}: transformers\' CLIPModel.from_pretrained("{output}"), CLIPProcessor likewise'
    else:
        trunk = getattr(model.network.visual, "trunk", None)
        if trunk is None:
            raise ValueError(
                f"{weights}: its image tower is open_clip's, not timm's; use --format transformers or onnx"
            )
        write_timm_folder(output, trunk, model.image_size, model.config["mean"], model.config["std"])
        text = f'{output}: timm.create_model("local-dir:{output}", pretrained=True)'
    print(dumps(result) if json else text)
    return result


if __name__ == "__main__":
    run_script(main)
