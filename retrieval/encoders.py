"""Which network turns images into vectors, whoever trained it?

file, folder or timm name -> open_encoder -> ImageEncoder (common/models/pooling.py)
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from clip.checkpoint import load_clip
from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.transforms import square
from common.models.backbone import create_backbone
from common.models.checkpoint_file import read_tensors
from common.models.pooling import POOLINGS, ImageEncoder
from common.models.timm_tokens import Tokens, backbone_tokens, normalise
from common.vectors.extractor import Extractor, own_device
from retrieval.internvit import open_vit
from style_encoder import load_encoder


def open_encoder(weights: str | Path, device: torch.device | str = "cpu", image_size: int = 0) -> ImageEncoder:
    """In eval mode on `device`. weights: a file or folder of a kind in ENCODER_LOADERS, or a timm model: `NAME` with timm's
    weights, `NAME:FILE` with those of a file, `NAME:random`. image_size: pixels; 0 is the network's own."""
    encoder = ENCODER_LOADERS[kind_of(weights)](str(weights), image_size)
    return encoder.to(device).eval()


def kind_of(weights: str | Path) -> str:
    """A key of ENCODER_LOADERS: the `kind` in a file, that of a folder's config.json, or 'timm'."""
    path = Path(weights)
    if path.is_dir():
        return _kind_of_folder(path)
    if path.is_file():
        content = {} if path.suffix == ".safetensors" else read_tensors(path)
        kind = content.get("kind", "InternViT") if isinstance(content, dict) else type(content).__name__
        if kind not in ENCODER_LOADERS:
            raise ValueError(
                f"{path}: weights of kind '{kind}' make no image vectors; expected {', '.join(ENCODER_LOADERS)}"
            )
        return kind
    name = str(weights).partition(":")[0]
    if "/" in name or Path(name).suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise FileNotFoundError(f"{weights}: no such file or folder of weights")
    return "timm"


def _kind_of_folder(path: Path) -> str:
    config = path / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: no such file; a folder of weights has one")
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.get("kind") in ENCODER_LOADERS:  # of tools/push_to_hub.py
        return content["kind"]
    kind = content.get("model_type")
    if kind not in FOLDERS:
        raise ValueError(f"{config}: model_type '{kind}'; expected {', '.join(FOLDERS)}")
    return FOLDERS[kind]


class TimmVectors(ImageEncoder):
    """Any timm model; its own vector is what it gives its classifier."""

    own = "what the classifier reads"

    def __init__(self, backbone: nn.Module, image_size: int = 0):
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)
        config = resolve_model_data_config(backbone)
        self.image_size = image_size or config["input_size"][-1]
        config["input_size"] = (3, self.image_size, self.image_size)
        self.preprocess = create_transform(**config, normalize=False)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        return backbone_tokens(self.backbone, normalise(pixels, self.mean, self.std), layer)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.backbone(normalise(pixels, self.mean, self.std))


class StyleVectors(ImageEncoder):
    """A style encoder; its own vector is the style, its patches are those of its backbone."""

    own = "style"

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.image_size = encoder.tower.image_size
        self.preprocess = CentredSquare(self.image_size)

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        tower = self.encoder.tower
        return backbone_tokens(tower.backbone, normalise(pixels, tower.mean, tower.std), layer)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixels).style


class ClipVectors(ImageEncoder):
    """A CLIP; its own vector is the projected one, which texts can be compared with."""

    own = "image vector, comparable with texts"

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.image_size = model.image_size
        self.preprocess = model.preprocess

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        visual = self.model.network.visual
        try:
            found = visual.forward_intermediates(
                self.model.normalise(pixels),
                indices=[layer],
                intermediates_only=True,
                output_extra_tokens=True,
                normalize_intermediates=layer == -1 and hasattr(visual, "ln_post"),
            )
        except AssertionError as error:
            raise ValueError(f"--layer {layer}: {error}") from None
        cls = found.get("image_intermediates_prefix")
        return Tokens(found["image_intermediates"][0].flatten(2).mT, cls[0][:, 0] if cls else None)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return self.model.encode_text(texts).float()


class CentredSquare:
    """image -> (3, S, S) uint8: the largest centred square, as the style encoder is validated on."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = square(np.asarray(fit_shorter_side(image, round(CACHE_SCALE * self.size))), self.size)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def _open_timm(weights: str, image_size: int) -> ImageEncoder:
    name, colon, source = weights.partition(":")
    if colon and not source:
        raise ValueError(f"{weights}: what stands behind the colon? a file of weights, or random")
    torch.manual_seed(0)  # random weights are the same ones each time
    backbone = create_backbone(name, source != "random" and (source or True), image_size or None)
    return TimmVectors(backbone, image_size)


def _open_style(weights: str, image_size: int) -> ImageEncoder:
    encoder = StyleVectors(load_encoder(weights, torch.device("cpu"))[0])
    return _of_its_own_size(encoder, weights, image_size)


def _open_clip(weights: str, image_size: int) -> ImageEncoder:
    encoder = ClipVectors(load_clip(weights)[0])
    return _of_its_own_size(encoder, weights, image_size)


def _open_internvit(weights: str, image_size: int) -> ImageEncoder:
    return open_vit(weights, image_size)


def _of_its_own_size(encoder: ImageEncoder, weights: str, image_size: int) -> ImageEncoder:
    if image_size not in (0, encoder.image_size):
        raise ValueError(f"--image_size {image_size}: {weights} is used at its own, {encoder.image_size} pixels")
    return encoder


ENCODER_LOADERS = {"style encoder": _open_style, "clip": _open_clip, "InternViT": _open_internvit, "timm": _open_timm}
FOLDERS = {  # model_type in config.json: kind; of whole models the ViT is taken
    "clip": "clip",
    "internvl_vision": "InternViT",
    "intern_vit_6b": "InternViT",
    "internvl": "InternViT",
    "internvl_chat": "InternViT",
    "timm_wrapper": "InternViT",
}


def add_encoder_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--vit_checkpoint",
        required=required,
        help="weights that extract_vit.py wrote, a style "
        "encoder's or CLIP's file, a Hugging Face folder of an InternViT or CLIP, or a timm model: "
        "NAME, NAME:FILE, NAME:random",
    )
    parser.add_argument(
        "--pooling",
        choices=["auto", "own", *POOLINGS],
        default="auto",
        help="auto: the network's own vector, or the mean of patches where it has none",
    )
    parser.add_argument("--layer", type=int, default=-1, help="-1: the last block, -2: the one before, ...")
    parser.add_argument("--flip", action="store_true", help="mean of the vectors of the image and its mirror image")
    parser.add_argument("--tiles", type=int, default=1, help="cut into at most so many squares; mean of their vectors")
    parser.add_argument("--image_size", type=int, default=0, help="pixels of the square input; 0: the network's own")
    parser.add_argument("--batch_size", type=int, default=32, help="images at once")
    parser.add_argument("--num_workers", type=int, default=-1, help="processes that decode; -1: none on a CPU, else 8")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, fp16; auto: bf16 on a GPU that has it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def open_extractor(weights: str, image_size: int = 0, device: str = "auto", **options: Any) -> Extractor:
    """The encoder of `weights`, ready to encode files. options: those of Extractor."""
    chosen = own_device(device)
    return Extractor(open_encoder(weights, chosen, image_size), weights, chosen, **options)


def extractor_of(args: argparse.Namespace) -> Extractor:
    """From the flags of add_encoder_flags."""
    names = ("pooling", "layer", "flip", "tiles", "batch_size", "num_workers", "precision")
    options = {name: getattr(args, name) for name in names}
    return open_extractor(args.vit_checkpoint, args.image_size, args.device, **options)
