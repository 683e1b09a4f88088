"""The vision encoder of a checkpoint of any layout.

folder or file of a whole model, or of an encoder alone -> tensors in transformers' names, exact config, normalisation
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, InternVLVisionConfig, PreTrainedConfig, TimmWrapperConfig

from common.models.build_arguments import building
from common.models.checkpoint_file import check_tensors
from common.models.model_config import read_model_config
from common.models.weight_files import find_weights, read_weights
from vitp.key_mapping import Weights, split_vision, timm_arguments, vision_config, vit_from_transformers, vit_to_timm
from vitp.model import TIMM
from vitp.processing import read_image_settings

INTERNVIT_SETTINGS = {  # names in InternViT's own config, in transformers'
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

PLAIN_VIT = "vit_base_patch16_224"  # timm's name for a ViT whose sizes are all given as arguments
HEADS = {1024: 16, 3200: 25}  # of the published InternViTs, 300M and 6B, by width


class Vit(NamedTuple):
    weights: Weights  # under the names of config's model
    config: PreTrainedConfig  # InternVLVisionConfig or TimmWrapperConfig
    image_mean: list[float]
    image_std: list[float]
    num_others: int  # tensors of projector and language model in the checkpoint

    @property
    def dtype(self) -> torch.dtype:
        """BatchNorm counts its batches in whole numbers besides."""
        return next(value.dtype for value in self.weights.values() if value.is_floating_point())


def read_vit(checkpoint: str | Path, config: str | Path | None = None) -> Vit:
    """Every tensor must belong to the encoder, and fit it, or to a known other part.

    config: a config.json; otherwise the one next to the weights (or <name>.json of extract_vit.py), or a folder above,
    as for the checkpoints of a run with LoRA. Published encoders need none.
    """
    file = find_weights(checkpoint)
    tensors = read_weights(file)
    try:
        weights, others = split_vision(tensors)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not weights:
        raise ValueError(f"{file}: holds no vision encoder; its {len(others)} tensors are the language model's")
    if any(".lora_" in name for name in weights):
        raise ValueError(f"{file}: holds a LoRA of the vision encoder; the folder of the run has the merged encoder")
    config_file = _find_config(file, config)
    settings = read_model_config(config_file) if config_file else _published_settings(file, weights)
    hints = settings.get("vision_config", settings)
    with building(config_file or file, settings):
        exact = AutoConfig.for_model(**hints) if hints.get("model_type") == TIMM else vision_config(weights, hints)
    if exact.model_type != TIMM and "embeddings.cls_token" not in weights:
        try:
            exact, weights = _without_class_token(exact, weights)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        print(
            f"{file}: the ViT of a downstream model, without a class token; the {len(others)} tensors of its adapter, "
            "neck and heads are not used",
            file=sys.stderr,
        )
    with building(config_file or file, settings), torch.device("meta"):
        expected = AutoModel.from_config(exact).state_dict()
    check_tensors(weights, expected, file, f"the encoder of {config_file}" if config_file else "an InternViT")
    images = settings if "image_mean" in settings else read_image_settings((config_file or file).parent)
    return Vit(weights, exact, images["image_mean"], images["image_std"], len(others))


def build_vit(vit: Vit, **loading) -> nn.Module:
    """-> InternVLVisionModel or TimmWrapperModel in evaluation mode, in the dtype of its weights"""
    model = AutoModel.from_config(vit.config, **loading)
    model.to(vit.dtype).load_state_dict(vit.weights)
    return model.eval()


def load_vit(checkpoint: str | Path, config: str | Path | None = None, **loading) -> tuple[nn.Module, Vit]:
    """read_vit and build_vit in one."""
    vit = read_vit(checkpoint, config)
    return build_vit(vit, **loading), vit


def internvit_settings(vit: Vit) -> dict:
    """config.json of an InternViT, with the normalisation of its images."""
    config: InternVLVisionConfig = vit.config
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",  # of every size
        **{name: getattr(config, attribute) for name, attribute in INTERNVIT_SETTINGS.items()},
        "image_size": config.image_size[0],
        "patch_size": config.patch_size[0],
        "image_mean": vit.image_mean,
        "image_std": vit.image_std,
    }


def _find_config(file: Path, config: str | Path | None) -> Path | None:
    if config:
        path = Path(config)
        return path / "config.json" if path.is_dir() else path
    for path in (file.with_suffix(".json"), file.parent / "config.json", file.parent.parent / "config.json"):
        if path.is_file() and path != file:
            return path
    return None


def _published_settings(file: Path, weights: Weights) -> dict:
    """What the tensors do not show, for a file without a config.json, as ViTP's own encoders are published."""
    table = weights.get("embeddings.position_embeddings")
    width = 0 if table is None else table.shape[-1]
    if width not in HEADS:
        command = f"""echo '{{"num_attention_heads": 16}}' > {file.with_suffix(".json")}"""
        raise FileNotFoundError(
            f"{file}: no config.json next to it, and no published InternViT is {width} wide; its number of attention "
            f"heads is needed, in a file next to it: {command}, with the right number"
        )
    print(
        f"{file}: no config.json next to it; {HEADS[width]} heads, as every published InternViT of its width",
        file=sys.stderr,
    )
    return {"num_attention_heads": HEADS[width]}


def _without_class_token(config: InternVLVisionConfig, weights: Weights) -> tuple[TimmWrapperConfig, Weights]:
    """Tensors of an InternViT that was used without its class token -> timm's ViT, which transformers opens, too."""
    arguments = timm_arguments(config) | {"class_token": False, "global_pool": "avg", "fc_norm": False}
    del arguments["num_classes"]
    exact = TimmWrapperConfig(architecture=PLAIN_VIT, do_pooling=False, model_args=arguments)
    exact.hidden_size, exact.image_size, exact.patch_size = config.hidden_size, config.image_size, config.patch_size
    named = vit_to_timm(vit_from_transformers(weights))
    named["pos_embed"] = named["pos_embed"][:, 1:]  # the first position was the class token's
    return exact, {f"timm_model.{name}": value for name, value in named.items()}
