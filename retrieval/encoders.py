"""Image encoders by their weights: InternViT, CLIP, style encoder, any timm model.

file, folder or timm name -> open_encoder -> ImageEncoder (common/models/pooling.py) -> Extractor
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from transformers import TimmWrapperModel

from clip.checkpoint import is_clip_name, load_clip
from clip.image_encoder import CLIPImageEncoder
from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.transforms import square
from common.models.backbone import Tokens, backbone_tokens, check_features, create_backbone, normalise, split_source
from common.models.checkpoint_file import read_tensors
from common.models.model_config import read_model_config
from common.models.pooling import ImageEncoder
from common.models.weight_files import unwrap, weights_folder
from common.vectors.extractor import Extractor, local_device
from common.vectors.options import DEFAULT_OPTIONS, ExtractorOptions
from style_encoder import load_encoder
from vitp.vision_encoder import load_vit


class BackboneEncoder(ImageEncoder):
    """A timm backbone and the normalisation of its input (mean, std for pixels in [0, 1]); no native vector."""

    def __init__(self, backbone: nn.Module, image_size: int, mean, std):
        super().__init__()
        self.backbone, self.image_size = backbone, image_size
        self.preprocess = partial(squash, size=image_size)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values).view(1, 3, 1, 1), persistent=False)

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        return backbone_tokens(self.backbone, normalise(pixels, self.mean, self.std), layer)


class TimmImageEncoder(BackboneEncoder):
    """Any timm model; its native vector is the input of its classifier."""

    has_native = True
    refusal = ""  # why it has no patches, where it has none

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        if self.refusal:
            raise ValueError(f"{self.refusal}, or --pooling native")
        return super().tokens(pixels, layer)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.backbone(normalise(pixels, self.mean, self.std))


class StyleImageEncoder(BackboneEncoder):
    """A style encoder; its native vector is the style, its patches are those of its backbone."""

    has_native = True

    def __init__(self, encoder: nn.Module):
        tower = encoder.tower
        super().__init__(tower.backbone, tower.image_size, tower.mean, tower.std)
        self.encoder, self.preprocess = encoder, partial(centred_square, size=tower.image_size)

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixels).style


class InternViTImageEncoder(BackboneEncoder):
    """The ViT of an instruction-trained model; never trained to compare images, it has no native vector."""

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        """Layer -1 is transformers' last_hidden_state, -2 its hidden_states[-2], ...; later blocks are not computed."""
        blocks = self.backbone.encoder.layer
        if not -len(blocks) <= layer <= -1:
            raise ValueError(f"--layer {layer}: this ViT has {len(blocks)} blocks; expected -{len(blocks)} to -1")
        hidden = self.backbone.embeddings(normalise(pixels, self.mean, self.std))  # (B, 1 + N, V)
        for block in blocks[: len(blocks) + 1 + layer]:
            hidden = block(hidden)
        if layer == -1:
            hidden = self.backbone.layernorm(hidden)
        return Tokens(hidden[:, 1:], hidden[:, 0])


def centred_square(image: Image.Image, size: int) -> torch.Tensor:
    """-> (3, S, S) uint8: the largest centred square, as the style encoder is validated on."""
    pixels = square(np.asarray(fit_shorter_side(image, round(CACHE_SCALE * size))), size)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def squash(image: Image.Image, size: int) -> torch.Tensor:
    """-> (3, S, S) uint8: the whole image, whatever its shape, as the tiles of ViTP's training were."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def _open_timm(weights: str, image_size: int) -> ImageEncoder:
    name, source = split_source(weights)
    torch.manual_seed(0)  # random weights are the same ones each time
    backbone = create_backbone(name, source != "random" and (source or True), image_size or None)
    config = resolve_model_data_config(backbone)
    size = image_size or config["input_size"][-1]
    encoder = TimmImageEncoder(backbone.to(memory_format=torch.channels_last), size, config["mean"], config["std"])
    try:
        check_features(name, backbone.eval(), size)
    except ValueError as error:  # its own vector needs no patches
        encoder.refusal = str(error)
    encoder.preprocess = create_transform(**{**config, "input_size": (3, size, size)}, normalize=False)
    return encoder


def _open_style(weights: str, image_size: int) -> ImageEncoder:
    return StyleImageEncoder(load_encoder(weights, torch.device("cpu"))[0])


def _open_clip(weights: str, image_size: int) -> ImageEncoder:
    return CLIPImageEncoder(load_clip(weights)[0])


def _open_internvit(weights: str, image_size: int) -> ImageEncoder:
    """image_size: a multiple of the patch size, to which an InternViT resamples its positions."""
    model, vit = load_vit(weights)
    own_size, patch_size = vit.config.image_size[0], vit.config.patch_size[0]
    if isinstance(model, TimmWrapperModel):
        return BackboneEncoder(model.float().timm_model, own_size, vit.image_mean, vit.image_std)
    if image_size % patch_size:
        raise ValueError(f"--image_size {image_size}: {weights} takes a multiple of {patch_size}")
    return InternViTImageEncoder(model.float(), image_size or own_size, vit.image_mean, vit.image_std)


ENCODER_LOADERS = {"style encoder": _open_style, "clip": _open_clip, "InternViT": _open_internvit, "timm": _open_timm}
FOLDERS = {  # model_type in config.json: kind; of whole models the ViT is taken
    "clip": "clip",
    "internvl_vision": "InternViT",
    "intern_vit_6b": "InternViT",
    "internvl": "InternViT",
    "internvl_chat": "InternViT",
    "timm_wrapper": "InternViT",
}


def open_encoder(weights: str | Path, device: torch.device | str = "cpu", image_size: int = 0) -> ImageEncoder:
    """In eval mode on `device`. image_size: pixels; 0 is the network's own.

    weights: a file or folder of a kind in ENCODER_LOADERS, or a timm model: `NAME` (or timm/NAME, hf-hub:OWNER/NAME,
    local-dir:FOLDER) with its weights, `NAME:FILE` with those of a file, `NAME:random`; or a CLIP of open_clip,
    `NAME:TAG` or `NAME:FILE`.
    """
    encoder = ENCODER_LOADERS[kind_of(weights)](str(weights), image_size)
    if image_size not in (0, encoder.image_size):
        raise ValueError(f"--image_size {image_size}: {weights} is used at its own, {encoder.image_size} pixels")
    return encoder.to(device).eval()


def open_extractor(weights: str, options: ExtractorOptions = DEFAULT_OPTIONS) -> Extractor:
    """The encoder of `weights`, ready to encode files."""
    return Extractor(open_encoder(weights, local_device(options.device), options.image_size), weights, options)


def kind_of(weights: str | Path) -> str:
    """A key of ENCODER_LOADERS: the `kind` in a file, that of a folder's config.json, or 'timm'."""
    path, (name, _, source) = Path(weights), str(weights).partition(":")
    if is_clip_name(name, source) and not path.exists():
        return "clip"
    if (weights_folder(path) / "config.json").is_file():  # also of a file of weights in it, present or not
        path = weights_folder(path)
    if ((path.parent if path.is_file() else path) / "open_clip_config.json").is_file():
        return "clip"
    if path.is_dir():
        content = read_model_config(path / "config.json", "a folder of weights has one")
        if content.get("kind") in ENCODER_LOADERS:  # of tools/push_to_hub.py
            return content["kind"]
        if content.get("model_type") not in FOLDERS:
            raise ValueError(
                f"{path}/config.json: model_type '{content.get('model_type')}'; expected {', '.join(FOLDERS)}"
            )
        return FOLDERS[content["model_type"]]
    if path.is_file():
        content = _tensor_names(path) if path.suffix == ".safetensors" else read_tensors(path)
        kind = str(content.get("kind", "InternViT")) if isinstance(content, dict) else type(content).__name__
        if kind == "InternViT" and any(str(name).endswith("logit_scale") for name in unwrap(content)):
            raise ValueError(f"{path}: weights of a CLIP; name its architecture, as in ViT-B-32:{path}")
        if kind not in ENCODER_LOADERS:
            raise ValueError(
                f"{path}: weights of kind '{kind}' give no image vectors; expected {', '.join(ENCODER_LOADERS)}"
            )
        return kind
    if not name.startswith("timm/") and ("/" in name or Path(name).suffix in (".pth", ".pt", ".bin", ".safetensors")):
        raise FileNotFoundError(f"{weights}: no such file or folder of weights")
    return "timm"


def _tensor_names(path: Path) -> dict[str, None]:
    try:
        with safe_open(path, "pt") as file:
            return dict.fromkeys(file.keys())
    except SafetensorError:  # the loader says so
        return {}
