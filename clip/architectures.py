"""Architectures of CLIP by name, and open_clip networks of them.

'ViT-B/32' ... 'small', all names of open_clip  ->  architecture (a model config of open_clip)  ->  CLIP, CustomTextCLIP

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
from common.models.pretrained import load_pretrained

OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "RN50": "RN50",
    "RN101": "RN101",
    "ViT-L/14@336px": "ViT-L-14-336",
    "RN50x4": "RN50x4",
    "RN50x16": "RN50x16",
    "RN50x64": "RN50x64",
}
PROJECTIONS = (  # of the towers, and the temperature: names in open_clip's networks
    "visual.proj",
    "visual.attnpool.c_proj.",
    "visual.head.",
    "visual.trunk.head.weight",
    "visual.trunk.head.bias",
    "visual.trunk.head.fc.",
    "text_projection",
    "text.text_projection",
    "text.proj.",
    "logit_scale",
    "logit_bias",
)
# From scratch on a CPU. Small patches, because generated scenes differ in small details.
SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 64, "layers": 6, "width": 256, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
INITIAL_SCALE = 16.0  # 1 / temperature at the start of training; the parameter is its logarithm
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0  # of SigLIP at the start of training (Zhai et al. 2023, section 3.2)


def canonical_name(model_name: str) -> str:
    """ViT-B-32 of open_clip -> ViT-B/32; ViT-H/14 -> ViT-H-14; any other name is unchanged."""
    name = model_name.replace("/", "-")
    openai = next((ours for ours, theirs in OPENAI_NAMES.items() if theirs == name), None)
    return openai or (name if name in open_clip.list_models() else model_name)


def open_clip_name(model_name: str) -> str:
    return OPENAI_NAMES.get(model_name, model_name)


def is_architecture(model_name: str) -> bool:
    """model_name: canonical."""
    return model_name == "small" or open_clip_name(model_name) in open_clip.list_models()


def check_architecture(model_name: str) -> None:
    if not is_architecture(model_name):
        names = [*OPENAI_NAMES, "small"]
        others = [name for name in open_clip.list_models() if name not in OPENAI_NAMES.values()]
        raise ValueError(
            unknown_name(model_name, [*names, *others], "model") + f" (--model_name: {', '.join(names)}, "
            "another of open_clip's, or a folder or hub name of a Hugging Face CLIP model)"
        )


def make_architecture(
    model_name: str,
    image_size: int | None = None,
    projection_dim: int | None = None,
    patch_dropout: float = 0.0,
    image_tower: str | None = None,
    text_tower: str | None = None,
) -> dict[str, Any]:
    """open_clip's model config of this name, with changes.

    image_tower: a timm model in place of the image tower, named as in resolve_backbone; text_tower: a Hugging Face text
    encoder by name or folder, such as xlm-roberta-base or a Chinese BERT; image_size: pixels of the square input;
    patch_dropout: share of patches dropped from each training image (Li et al. 2023, FLIP; transformers only).
    """
    check_architecture(model_name)
    architecture = copy.deepcopy(
        SMALL if model_name == "small" else open_clip.get_model_config(open_clip_name(model_name))
    )
    if image_tower:
        architecture["vision_cfg"] = {
            "timm_model_name": resolve_backbone(image_tower)[0],
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": architecture["vision_cfg"]["image_size"],
        }
    if text_tower:  # its texts come as they are: open_clip's cleaning replaces Chinese punctuation
        names = {"hf_model_name": text_tower, "hf_tokenizer_name": text_tower}
        architecture["text_cfg"] = names | {"tokenizer_kwargs": {"clean": ""}}
    architecture = complete_architecture(architecture)
    vision = architecture["vision_cfg"]
    if patch_dropout and isinstance(vision.get("layers"), list):
        raise ValueError(f"--patch_dropout: {model_name} has no patches to drop; use a ViT, or 0")
    vision |= {"patch_dropout": patch_dropout} if patch_dropout else {}
    vision["image_size"] = image_size or vision["image_size"]
    if projection_dim and vision.get("timm_proj") == "none":
        raise ValueError(f"--projection_dim: the image vectors of {model_name} are not projected; omit it")
    architecture["embed_dim"] = projection_dim or architecture["embed_dim"]
    patch = vision.get("patch_size")
    if patch and vision["image_size"] % patch:
        raise ValueError(f"--image_size {vision['image_size']}: must be a multiple of {model_name}'s patch of {patch}")
    return architecture


def complete_architecture(architecture: dict[str, Any]) -> dict[str, Any]:
    """A model config of open_clip without what two towers do not need, with what it names on the Hub.

    A CoCa loses its decoder, which writes captions. Width, layers and vocabulary of a Hugging Face text encoder come
    from its own config.
    """
    architecture = {name: value for name, value in architecture.items() if name != "multimodal_cfg"}
    vision, text = (architecture[f"{tower}_cfg"] for tower in ("vision", "text"))
    vision, text = ({name: tower[name] for name in tower if name != "output_tokens"} for tower in (vision, text))
    text.setdefault("context_length", 77)
    if name := text.get("hf_model_name"):
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"--text_tower {name}: no config can be read from it ({first_line(error)})") from error
        if getattr(config, "pad_token_id", None) is None:
            raise ValueError(f"--text_tower {name}: its config has no pad_token_id; it is needed to mask padding")
        text["hf_config"] = config.to_dict()
    return architecture | {"vision_cfg": vision, "text_cfg": text}


def build_network(architecture: dict[str, Any], sigmoid: bool = False) -> nn.Module:
    """architecture -> open_clip network with random weights; `sigmoid`: with the bias and initial values of SigLIP."""
    architecture = copy.deepcopy(architecture)
    scale, bias = (SIGMOID_SCALE, SIGMOID_BIAS) if sigmoid else (INITIAL_SCALE, None)
    is_custom = architecture.pop("custom_text", False)
    architecture |= {"init_logit_scale": math.log(scale), "init_logit_bias": bias}
    architecture["vision_cfg"]["timm_model_pretrained"] = False
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if "hf_config" in text:  # open_clip would read such a tower by name; it gets a placeholder that is replaced
        architecture["text_cfg"], is_custom = {"vocab_size": 1, "width": 8, "heads": 1, "layers": 1}, True
    try:
        network = (open_clip.CustomTextCLIP if is_custom else open_clip.CLIP)(**architecture)
    except TypeError as error:
        if "patch_drop" not in str(error):
            raise
        raise ValueError(
            f"--patch_dropout: {vision['timm_model_name']} has no patches to drop; use a ViT, or 0"
        ) from None
    if "hf_config" in text:
        network.text = _text_encoder(text, architecture["embed_dim"])
        network.context_length = text["context_length"]
    trunk, size = getattr(network.visual, "trunk", None), vision["image_size"]
    if hasattr(trunk, "set_input_size") and getattr(trunk.patch_embed, "img_size", None) != (size, size):
        patch = getattr(trunk.patch_embed, "patch_size", (1,))[0]
        if size % patch:  # published sizes need not be a multiple: 384 pixels in patches of 14
            raise ValueError(f"--image_size {size}: must be a multiple of {patch}, the patch of the image tower")
        network.visual.set_input_size(size)
    return network


def load_text_encoder(name: str) -> nn.Module:
    """A Hugging Face text encoder with its weights; those of other tasks, such as masked words, are ignored."""
    config, label = AutoConfig.from_pretrained(name, trust_remote_code=False), f"--text_tower {name}"
    if getattr(config, "is_encoder_decoder", False):
        return load_pretrained(AutoModel, name, label=label, unexpected=[""]).encoder
    return load_pretrained(AutoModel, name, label=label, unexpected=[""], add_pooling_layer=False)


def _text_encoder(text: dict[str, Any], embed_dim: int) -> HFTextEncoder:
    """Its vectors are averaged over real tokens and projected by an MLP, unless `text` says otherwise."""
    config = AutoConfig.for_model(**text["hf_config"])
    pooler, projection = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    encoder = HFTextEncoder("", embed_dim, config=config, pooler_type=pooler, proj_type=projection)
    if getattr(config, "is_encoder_decoder", False):
        encoder.transformer = encoder.transformer.encoder
    elif pooler != "cls_pooler":
        # Without the encoder's own pooler: other pooling leaves it without a gradient, an error in DDP.
        encoder.transformer = AutoModel.from_config(config, add_pooling_layer=False)
    return encoder
