"""Pretrained weights of CLIP, with what only they know: activation, channel statistics, whole architecture.

tag of open_clip ('openai', ...), or a file (ours, open_clip's, OpenAI's)   -> Pretrained, for an architecture by name
file or folder of ours, Hugging Face CLIP folder, names of both on the Hub  -> Checkpoint, which rebuilds its model

OpenAI's networks have QuickGELU and most others GELU, which the shapes of weights do not show: the wrong one loads and
is quietly worse. So it comes with the weights wherever it is on record.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.factory import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import nn

from clip.architectures import OPENAI_NAMES
from clip.huggingface import read_huggingface
from common.models.checkpoint_file import first_line, load_every_tensor, read_tensors
from common.models.model_folder import is_model_folder, load_model
from common.models.weight_files import model_folder

KIND = "clip"
OPENAI_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # among the weights of archives


class Pretrained(NamedTuple):
    """Weights of a network. None: not on record."""

    source: Path
    weights: dict[str, torch.Tensor]
    quick_gelu: bool | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


class Checkpoint(NamedTuple):
    """A whole model: config for CLIPModel(config=...), weights of its `network`, other content of the file."""

    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    metadata: dict[str, Any]


def read_checkpoint(name: str | Path) -> Checkpoint:
    name = model_folder(name)
    if not Path(name).is_file() and not is_model_folder(name):
        return Checkpoint(*read_huggingface(name), {})
    content = load_model(name, KIND)
    weights = {key.removeprefix("network."): value for key, value in content.pop("model_state_dict").items()}
    return Checkpoint(content["build"]["config"], weights, content)


def choose_weights(pretrained: str, model_name: str, is_plain: bool = True) -> str | None:
    """A setting -> what CLIPModel takes. auto: OpenAI's, as far as published; none, or empty: random weights.

    is_plain: no tower of the architecture is replaced by another.
    """
    if pretrained == "auto":
        return "openai" if model_name in OPENAI_NAMES and is_plain else None
    return None if pretrained in ("", "none") else pretrained


def read_pretrained(model_name: str, pretrained: str) -> Pretrained:
    """pretrained: a file, 'openai' or another tag of open_clip, downloaded once."""
    if Path(pretrained).is_file():
        return read_file(Path(pretrained))
    name = OPENAI_NAMES.get(model_name, "")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if Path(pretrained).is_dir() or ("/" in pretrained and pretrained not in tags):
        raise ValueError(
            f"--pretrained {pretrained}: no such file; a whole model goes to --model_name, by folder or name"
        )
    if pretrained not in tags:
        raise ValueError(
            f"--pretrained {pretrained}: no such file, and no weights of that name for {model_name} "
            f"({', '.join(tags) if tags else 'none are published'})"
        )
    config = open_clip.get_pretrained_cfg(name, pretrained)
    try:
        path = open_clip.download_pretrained(config)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"--pretrained {pretrained}: the weights of {model_name} could not be downloaded ({first_line(error)}); "
            "connect once, give a local file, or --pretrained none to train from scratch"
        ) from error
    return read_file(Path(path))._replace(
        quick_gelu=config.get("quick_gelu", False), mean=config.get("mean"), std=config.get("std")
    )


def read_file(path: Path) -> Pretrained:
    """Weights under open_clip's names; without a record of the activation it is open_clip's default, GELU."""
    content = _read(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected named weights")
    config = content["build"]["config"] if content.get("kind") == KIND else {}
    if OPENAI_CONSTANTS[0] in content:
        quick_gelu = True
    else:
        quick_gelu = config["architecture"].get("quick_gelu", False) if config else None
    weights = next((content[key] for key in ("model_state_dict", "state_dict") if key in content), content)
    if any(name.startswith("vision_model.") for name in weights):
        raise ValueError(f"{path}: is of a Hugging Face CLIP; give its folder, with config.json, as --model_name")
    for prefix in ("module.", "network."):  # of DDP, and of CLIPModel
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    weights = {
        name: value.float() if value.is_floating_point() else value  # OpenAI's are float16
        for name, value in weights.items()
        if name not in OPENAI_CONSTANTS
    }
    return Pretrained(path, weights, quick_gelu, config.get("mean"), config.get("std"))


def load_weights(network: nn.Module, pretrained: Pretrained) -> None:
    """Load every tensor of the network, or none: the error names what is missing."""
    weights = convert_state_dict(network, dict(pretrained.weights))
    if hasattr(network, "text"):
        weights = convert_to_custom_text_state_dict(weights)
    if network.logit_bias is not None and "logit_bias" not in weights:  # weights of --loss clip
        weights["logit_bias"] = network.logit_bias.detach().clone()
    resize_pos_embed(weights, network)  # of a ViT, for another image size
    load_every_tensor(network, weights, pretrained.source, "this model (--pretrained none: random ones)")


def _read(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of TorchScript archives such as OpenAI's
        try:
            return read_tensors(path)
        except ValueError as error:
            try:  # only the tensors of an archive are used, its program is not run
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            except RuntimeError:
                raise error from None
