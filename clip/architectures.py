"""Architectures of CLIP by name, and open_clip networks of them.

'ViT-B/32' ... 'small'  ->  architecture (a model config of open_clip)  ->  CLIP or CustomTextCLIP

An architecture is plain values, so a checkpoint can carry it: the config of a Hugging Face text tower is inside, not
the name of a folder that may no longer exist.
"""

import copy
import math
from typing import Any

import open_clip
from open_clip.hf_model import HFTextEncoder
from torch import nn
from transformers import AutoConfig, AutoModel

from common.cli.names import unknown_name
from common.models.backbone import resolve_backbone
from common.models.checkpoint_file import first_line

OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "RN50": "RN50",
    "RN101": "RN101",
}
# From scratch on a CPU. Small patches, because generated scenes differ in small details.
SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 64, "layers": 6, "width": 256, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
INITIAL_SCALE = 16.0  # 1 / temperature at the start of training; the parameter is its logarithm
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0  # of SigLIP at the start of training (Zhai et al. 2023, section 3.2)


def canonical_name(model_name: str) -> str:
    """ViT-B-32 of open_clip -> ViT-B/32; any other name is unchanged."""
    return next((ours for ours, theirs in OPENAI_NAMES.items() if theirs == model_name), model_name)


def make_architecture(
    model_name: str,
    image_size: int | None = None,
    projection_dim: int | None = None,
    patch_dropout: float = 0.0,
    image_tower: str | None = None,
) -> dict[str, Any]:
    """open_clip's model config of this name, with changes.

    image_tower: a timm model in place of the image tower, named as in resolve_backbone; image_size: pixels of the
    square input; patch_dropout: share of patches dropped from each training image (Li et al. 2023, FLIP; transformers
    only).
    """
    names = [*OPENAI_NAMES, "small"]
    if model_name not in names:
        raise ValueError(
            unknown_name(model_name, names, "model") + f" (--model_name: {', '.join(names)}, "
            "or a folder or hub name of a Hugging Face CLIP model)"
        )
    architecture = copy.deepcopy(
        SMALL if model_name == "small" else open_clip.get_model_config(OPENAI_NAMES[model_name])
    )
    if image_tower:
        architecture["vision_cfg"] = {
            "timm_model_name": resolve_backbone(image_tower)[0],
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": architecture["vision_cfg"]["image_size"],
        }
    vision = architecture["vision_cfg"]
    if patch_dropout and isinstance(vision.get("layers"), list):
        raise ValueError(f"--patch_dropout: {model_name} has no patches to drop; use a ViT, or 0")
    vision |= {"patch_dropout": patch_dropout} if patch_dropout else {}
    vision["image_size"] = image_size or vision["image_size"]
    architecture["embed_dim"] = projection_dim or architecture["embed_dim"]
    patch = vision.get("patch_size")
    if patch and vision["image_size"] % patch:
        raise ValueError(f"--image_size {vision['image_size']}: must be a multiple of {model_name}'s patch of {patch}")
    return architecture


def with_text_tower(architecture: dict[str, Any], name: str, context_length: int = 77) -> dict[str, Any]:
    """The architecture with a Hugging Face text encoder by name or folder, such as xlm-roberta-base or a Chinese BERT.

    Its width, layers and vocabulary come from its own config; its vectors are averaged over real tokens and projected
    by an MLP, as in open_clip's configs for such towers.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--text_tower {name}: no config can be read from it ({first_line(error)})") from error
    if getattr(config, "pad_token_id", None) is None:
        raise ValueError(f"--text_tower {name}: its config has no pad_token_id; it is needed to mask padding")
    return {**architecture, "text_cfg": {"hf_config": config.to_dict(), "context_length": context_length}}


def build_network(architecture: dict[str, Any], sigmoid: bool = False) -> nn.Module:
    """architecture -> open_clip network with random weights; `sigmoid`: with the bias and initial values of SigLIP."""
    architecture = copy.deepcopy(architecture)
    scale, bias = (SIGMOID_SCALE, SIGMOID_BIAS) if sigmoid else (INITIAL_SCALE, None)
    start = {"init_logit_scale": math.log(scale), "init_logit_bias": bias}
    text = architecture["text_cfg"]
    if "hf_config" not in text:
        network = open_clip.CLIP(**architecture, **start)
    else:
        # open_clip would read such a tower from a folder by name; it gets a placeholder that is replaced.
        architecture["text_cfg"] = {"vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
        network = open_clip.CustomTextCLIP(**architecture, **start)
        config = AutoConfig.for_model(**text["hf_config"])
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError(f"--text_tower: {config.model_type} has a decoder; choose an encoder such as xlm-roberta")
        network.text = HFTextEncoder(
            "", architecture["embed_dim"], config=config, pooler_type="mean_pooler", proj_type="mlp"
        )
        # Without the encoder's own pooler: mean pooling leaves it without a gradient, an error in DDP.
        network.text.transformer = AutoModel.from_config(config, add_pooling_layer=False)
        network.context_length = text["context_length"]
    trunk = getattr(network.visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "set_input_size"):
        network.visual.set_input_size(architecture["vision_cfg"]["image_size"])
    return network
