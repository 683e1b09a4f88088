"""The vision encoder of a checkpoint, whoever wrote it, by itself.

folder or file of a whole model, or of an encoder alone -> tensors in transformers' names, exact config, normalisation
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, InternVLVisionConfig, PreTrainedConfig

from vitp.checkpoint import read_json
from vitp.key_mapping import Weights, split_vision, vision_config
from vitp.model import TIMM
from vitp.processing import read_image_settings
from vitp.weights import check_names, find_weights, read_weights

INTERNVIT = {  # what InternViT's own config calls transformers' settings
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "norm_type": "norm_type",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_act": "hidden_act",
    "attention_dropout": "attention_dropout",
    "dropout": "projection_dropout",
    "initializer_factor": "layer_scale_init_value",
}


class Vit(NamedTuple):
    weights: Weights  # in the names of config's own model
    config: PreTrainedConfig  # InternVLVisionConfig or TimmWrapperConfig
    image_mean: list[float]
    image_std: list[float]
    left: int  # tensors of the checkpoint that are not the encoder's


def read_vit(checkpoint: str | Path, config: str | Path | None = None) -> Vit:
    """Every tensor of the file is either the encoder's, and has its place in it, or known to be another part's.

    config: a config.json; otherwise the one beside the weights (or <name>.json of extract_vit.py), or a folder above,
    as for the checkpoints of a run with LoRA.
    """
    file = find_weights(checkpoint)
    try:
        weights, rest = split_vision(read_weights(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}" if not str(error).startswith(str(file)) else str(error)) from None
    if not weights:
        raise ValueError(f"{file}: holds no vision encoder; its {len(rest)} tensors are the language model's")
    added = [name for name in weights if ".lora_" in name]
    if added:
        raise ValueError(
            f"{file}: holds a LoRA of the vision encoder, not the encoder; the run's own folder has them added up"
        )
    place = _find_config(file, config)
    facts = read_json(place)
    about = facts.get("vision_config", facts)
    exact = AutoConfig.for_model(**about) if about.get("model_type") == TIMM else vision_config(weights, about)
    with torch.device("meta"):
        wanted = AutoModel.from_config(exact).state_dict()
    check_names(set(weights), set(wanted), file)
    wrong = [name for name, value in wanted.items() if value.shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"{file}: {wrong[0]} is {tuple(weights[wrong[0]].shape)}, {place} says {wanted[wrong[0]].shape}"
        )
    images = facts if "image_mean" in facts else read_image_settings(place.parent)
    return Vit(weights, exact, images["image_mean"], images["image_std"], len(rest))


def load_vit(checkpoint: str | Path, config: str | Path | None = None, **loading) -> tuple[nn.Module, Vit]:
    """-> the encoder (InternVLVisionModel or TimmWrapperModel) in evaluation mode, and what read_vit says of it."""
    vit = read_vit(checkpoint, config)
    model = AutoModel.from_config(vit.config, **loading)
    model.to(next(iter(vit.weights.values())).dtype).load_state_dict(vit.weights)
    return model.eval(), vit


def internvit_settings(vit: Vit) -> dict:
    """The config.json of an InternViT, with the normalisation of its images."""
    config: InternVLVisionConfig = vit.config
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",  # of every size
        **{theirs: getattr(config, ours) for theirs, ours in INTERNVIT.items()},
        "image_size": config.image_size[0],
        "patch_size": config.patch_size[0],
        "image_mean": vit.image_mean,
        "image_std": vit.image_std,
    }


def _find_config(file: Path, given: str | Path | None) -> Path:
    if given:
        path = Path(given)
        return path / "config.json" if path.is_dir() else path
    places = [file.with_suffix(".json"), file.parent / "config.json", file.parent.parent / "config.json"]
    for place in places:
        if place.is_file() and place != file:
            return place
    raise FileNotFoundError(
        f"{file}: no config.json beside it, and the number of attention heads is in no tensor; give --config"
    )
