"""A CLIP for use without this repository.

python tools/export_clip.py --weights model-checkpoint/best_model.pth --output exported/clip             onnxruntime
python tools/export_clip.py --weights ... --output exported/clip_hf --format transformers        transformers' CLIPModel
python tools/export_clip.py --weights ... --output exported/tower --format timm      the image tower, where it is timm's

onnx: image.onnx, (B, 3, S, S) uint8 -> vectors (B, D) unit; text.onnx, tokens (B, T) int64 -> vectors (B, D) unit;
tokenizer.json, texts -> such tokens; preprocessing.json, files -> such images, and what cosines are multiplied by.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from tokenizers import Tokenizer as BackendTokenizer
from torch import nn
from transformers import CLIPTokenizer

from clip.checkpoint import load_clip
from clip.huggingface import write_huggingface, write_vocabulary
from clip.model import CLIPModel
from common.cli.errors import run_script
from common.models.onnx_export import in_words, random_images, write_onnx
from common.models.timm_folder import write_timm_folder
from common.text.files import write_atomically, write_json


class ImageTower(nn.Module):
    def __init__(self, model: CLIPModel):
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model.encode_image(image),)


class TextTower(nn.Module):
    def __init__(self, model: CLIPModel):
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.model.encode_text(tokens),)


def portable_tokenizer(model: CLIPModel) -> BackendTokenizer:
    """texts -> the tokens of model.tokenize, all padded to the context length.

    Of the CLIP vocabulary it is transformers' reading: alike but for broken Unicode and HTML entities, which
    open_clip's mends first.
    """
    facts = model.facts["tokenizer"]
    length, pad_id = facts["context_length"], model.tokenizer.pad_id
    if facts["kind"] == "clip":
        with tempfile.TemporaryDirectory() as folder:
            write_vocabulary(Path(folder), length)
            tokenizer = CLIPTokenizer.from_pretrained(folder).backend_tokenizer
    else:
        tokenizer = BackendTokenizer.from_str(facts["tokenizer_json"])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id), length=length)
    return tokenizer


def example_tokens(tokenizer: BackendTokenizer) -> Callable[[int], torch.Tensor]:
    """-> make_input of write_onnx: texts of different lengths, a full one among them."""
    texts = ["a red house", "two cats asleep under a tree in the garden", "a", "word " * 200, "the sea"]
    return lambda batch: torch.tensor([one.ids for one in tokenizer.encode_batch(texts[-batch:])])


def preprocessing(model: CLIPModel) -> dict[str, Any]:
    """What CLIPModel.preprocess and its logits do, in words that need no code of ours."""
    size, bias = model.image_size, model.network.logit_bias
    return {
        "image": {
            "name": "image",
            "shape": ["batch", 3, size, size],
            "type": "uint8",
            "channels": "RGB",
            "resize": [
                "decode upright (EXIF orientation applied), 8-bit RGB, transparency on white",
                f"scale the shorter side to {size} pixels, the other in proportion and rounded down, bicubic "
                "(Pillow's, with antialiasing)",
                f"cut out the centred {size} x {size} pixels: left = round((width - {size}) / 2), top likewise",
            ],
            "size": size,
            "interpolation": "bicubic",
            "normalised_inside": True,
            "mean": model.facts["mean"],
            "std": model.facts["std"],
        },
        "text": {
            "name": "tokens",
            "shape": ["batch", model.tokenizer.context_length],
            "type": "int64",
            "tokenizer": "tokenizer.json",
        },
        "logits": "scale * image_vectors @ text_vectors.T + bias",
        "scale": model.scale.item(),
        "bias": 0.0 if bias is None else bias.item(),
    }


def export_onnx(model: CLIPModel, folder: Path) -> dict[str, float]:
    """-> largest difference from PyTorch of each file, as a share of the largest value."""
    tokenizer = portable_tokenizer(model)
    towers = {
        "image": (ImageTower(model), random_images(model.image_size), "image"),
        "text": (TextTower(model), example_tokens(tokenizer), "tokens"),
    }
    found = {}
    for name, (tower, make_input, given) in towers.items():
        found |= {name: write_onnx(folder / f"{name}.onnx", tower, make_input, given, ["vectors"])["vectors"]}
    with write_atomically(folder / "tokenizer.json") as file:
        file.write(tokenizer.to_str(pretty=True).encode())
    write_json(folder / "preprocessing.json", {**preprocessing(model), "differences": found})
    return found


def export_timm(model: CLIPModel, folder: Path, weights: str) -> None:
    trunk = getattr(model.network.visual, "trunk", None)
    if trunk is None:
        raise ValueError(f"{weights}: its image tower is open_clip's, not timm's; use --format transformers or onnx")
    write_timm_folder(folder, trunk, model.image_size, model.facts["mean"], model.facts["std"])


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="tools/export_clip.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="a file of train.py, a folder, or a name on the Hub")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write")
    parser.add_argument(
        "--format", choices=("onnx", "transformers", "timm"), default="onnx", help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    model, _ = load_clip(args.weights)
    result: dict[str, Any] = {"output": str(args.output), "format": args.format}
    if args.format == "onnx":
        result["differences"] = export_onnx(model, args.output)
        files = "image.onnx, text.onnx, tokenizer.json, preprocessing.json"
        text = f"{args.output}: {files}; {in_words(result['differences'])}"
    elif args.format == "transformers":
        write_huggingface(model, args.output)
        text = f'{args.output}: transformers\' CLIPModel.from_pretrained("{args.output}"), CLIPProcessor likewise'
    else:
        export_timm(model, args.output, args.weights)
        text = f'{args.output}: timm.create_model("local-dir:{args.output}", pretrained=True)'
    print(json.dumps(result) if args.json else text)
    return result


if __name__ == "__main__":
    run_script(main)
