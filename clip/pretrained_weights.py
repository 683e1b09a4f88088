"""Pretrained weights for open_clip networks: files of several origins, and open_clip's tags.

file (ours, open_clip's, OpenAI's; .pth, .pt, .bin, .safetensors) -> names of this network -> all of them, or an error
"""

import warnings
from pathlib import Path

import open_clip
import torch
from open_clip.factory import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import nn

from clip.architectures import OPENAI_NAMES
from common.models.checkpoint_file import first_line, load_every_tensor, read_tensors

OPENAI_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # among the weights of archives


def load_pretrained(network: nn.Module, model_name: str, pretrained: str) -> tuple | None:
    """`pretrained`: a file, 'openai' or another tag of open_clip -> the weights' own mean and std, where known."""
    if Path(pretrained).is_file():
        load_weights(network, Path(pretrained))
        return None
    name = OPENAI_NAMES.get(model_name, "")
    tags = open_clip.list_pretrained_tags_by_model(name)
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
            f"--pretrained {pretrained}: download failed ({first_line(error)}); connect once, or give a local file"
        ) from error
    load_weights(network, Path(path))
    return (config["mean"], config["std"]) if config.get("mean") else None


def load_weights(network: nn.Module, path: Path) -> None:
    """Load every tensor of the network from the file, or none: the error names what is missing."""
    weights = _read(path)
    for prefix in ("module.", "network."):  # of DDP, and of CLIPModel
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    weights = {
        name: value.float() if value.is_floating_point() else value  # OpenAI's are float16
        for name, value in weights.items()
        if name not in OPENAI_CONSTANTS
    }
    weights = convert_state_dict(network, weights)
    if hasattr(network, "text"):
        weights = convert_to_custom_text_state_dict(weights)
    if network.logit_bias is not None and "logit_bias" not in weights:  # weights of --loss clip
        weights["logit_bias"] = network.logit_bias.detach().clone()
    if hasattr(network.visual, "positional_embedding") and "visual.positional_embedding" in weights:
        resize_pos_embed(weights, network)  # another image size
    load_every_tensor(network, weights, path, "this model")


def _read(path: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of TorchScript archives such as OpenAI's
        try:
            content = read_tensors(path)
        except ValueError as error:
            try:  # only the tensors of an archive are used, its program is not run
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            except RuntimeError:
                raise error from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}; expected named weights")
    return next((content[key] for key in ("model_state_dict", "state_dict") if key in content), content)
