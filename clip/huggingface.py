"""Conversion to and from Hugging Face CLIP folders: config.json, model.safetensors, tokenizer, preprocessor.

open_clip's names <-> transformers' names: q, k, v as one matrix <-> apart; projections transposed; else renamed

Only for networks with a vision transformer and CLIP's text transformer: transformers has no other CLIP.
"""

from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import nn
from transformers import AutoConfig, CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers import CLIPModel as TransformersCLIP

from common.models.checkpoint_file import first_line
from common.models.pretrained import LOAD_ERRORS, load_pretrained

NAMES = [  # of open_clip, of transformers: beginnings first, then parts of blocks
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
]
BLOCK_NAMES = [
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
]


# What transformers' CLIP has of open_clip's fields; in a network with others, such as another pooling, names may fit.
TOWER_FIELDS = {"width", "layers", "mlp_ratio", "norm_kwargs"}
VISION_FIELDS = TOWER_FIELDS | {"image_size", "patch_size", "head_width", "patch_dropout"}
TEXT_FIELDS = TOWER_FIELDS | {"context_length", "vocab_size", "heads", "pool_type", "eos_id"}


def to_transformers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """open_clip's state dict -> transformers' CLIPModel's."""
    renamed: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        new = _rename(name, NAMES, BLOCK_NAMES)
        if ".in_proj_" in new:
            renamed |= {
                new.replace("in_proj_", f"{part}_proj."): piece.clone() for part, piece in zip("qkv", value.chunk(3))
            }
        else:
            renamed[new] = value.T.contiguous() if new.endswith("projection.weight") else value
    return renamed


def to_open_clip_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' CLIPModel's state dict -> open_clip's. An unknown name is an error."""
    names, block_names = ([(new, old) for old, new in table] for table in (NAMES, BLOCK_NAMES))
    renamed: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        new = _rename(name, names, block_names)
        if ".q_proj." in name:
            renamed[new.replace("q_proj.", "in_proj_")] = torch.cat(
                [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            )
        elif ".k_proj." not in name and ".v_proj." not in name:
            renamed[new] = value.T.contiguous() if name.endswith("projection.weight") else value
    return renamed


def _rename(name: str, beginnings: list[tuple[str, str]], parts: list[tuple[str, str]]) -> str:
    match = next(((old, new) for old, new in beginnings if name.startswith(old)), None)
    if match is None:
        raise ValueError(f"'{name}': not a tensor of a plain CLIP")
    name = match[1] + name.removeprefix(match[0])
    for old, new in parts:
        name = name.replace(old, new)
    return name


def read_huggingface(name: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A Hugging Face CLIP by folder or hub name -> config of a CLIPModel with equal outputs, its network's weights."""
    is_folder = (Path(name) / "config.json").is_file()
    if not is_folder and (Path(name).exists() or str(name).count("/") != 1 or str(name).startswith(".")):
        raise FileNotFoundError(
            f"{name}: no model here; expected a file of clip/train.py, or a Hugging Face CLIP folder with config.json"
        )
    try:
        model_type = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        processor = CLIPImageProcessor.from_pretrained(name)
    except LOAD_ERRORS as error:
        raise ValueError(f"{name}: cannot be read as a CLIP folder ({first_line(error)})") from error
    if model_type != "clip":  # transformers would load what fits
        raise ValueError(f"{name}: is of type {model_type}, not clip; open_clip has others (ViT-B-16-SigLIP:webli)")
    theirs = load_pretrained(
        TransformersCLIP, str(name), dtype=torch.float32, unexpected=[r"(text|vision)_model\.embeddings\.position_ids"]
    )
    vision, text = theirs.config.vision_config, theirs.config.text_config
    if vision.hidden_act != text.hidden_act or vision.hidden_act not in ("quick_gelu", "gelu"):
        raise ValueError(f"activations {vision.hidden_act} and {text.hidden_act}: expected quick_gelu or gelu for both")
    # An end token of 2 stands for 'the highest index of the row' in old configs; any other is searched for itself.
    pooling = {} if text.eos_token_id == 2 else {"pool_type": "eos", "eos_id": text.eos_token_id}
    architecture = {
        "embed_dim": theirs.config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "norm_kwargs": {"eps": text.layer_norm_eps},
            **pooling,
        },
    }
    config = {
        "architecture": architecture,
        "sigmoid": False,
        "tokenizer": {"kind": "clip", "context_length": text.max_position_embeddings},
        "mean": list(processor.image_mean),
        "std": list(processor.image_std),
        "interpolation": "bilinear" if processor.resample == Image.Resampling.BILINEAR else "bicubic",
        "resize_mode": "shortest" if dict(processor.size).get("shortest_edge") else "squash",
    }
    return config, to_open_clip_names(theirs.state_dict())


def write_huggingface(model: nn.Module, folder: str | Path) -> None:
    """All files that transformers' CLIPModel and CLIPProcessor load, of our CLIPModel."""
    architecture = model.config["architecture"]
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if vision.keys() - VISION_FIELDS or text.keys() - TEXT_FIELDS or isinstance(vision["layers"], list):
        raise ValueError("a Hugging Face CLIP folder holds a vision transformer and CLIP's text transformer only")
    if model.network.logit_bias is not None:
        raise ValueError("a Hugging Face CLIP has no logit bias; this model was trained with --loss siglip")
    shared = {"hidden_act": "quick_gelu" if architecture.get("quick_gelu") else "gelu"}
    vision_config = CLIPVisionConfig(
        hidden_size=vision["width"],
        num_hidden_layers=vision["layers"],
        image_size=vision["image_size"],
        num_attention_heads=vision["width"] // vision.get("head_width", 64),
        patch_size=vision["patch_size"],
        intermediate_size=round(vision["width"] * vision.get("mlp_ratio", 4)),
        **shared,
        layer_norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
        projection_dim=architecture["embed_dim"],
    )
    end = text["vocab_size"] - 1
    text_config = CLIPTextConfig(
        hidden_size=text["width"],
        num_hidden_layers=text["layers"],
        num_attention_heads=text["heads"],
        vocab_size=text["vocab_size"],
        max_position_embeddings=text["context_length"],
        intermediate_size=round(text["width"] * text.get("mlp_ratio", 4)),
        **shared,
        layer_norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        projection_dim=architecture["embed_dim"],
        bos_token_id=end - 1,
        eos_token_id=text.get("eos_id", end),
        pad_token_id=text.get("eos_id", end),
    )
    theirs = TransformersCLIP(
        CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=architecture["embed_dim"])
    ).eval()
    theirs.load_state_dict(to_transformers_names(model.network.state_dict()))
    theirs.save_pretrained(folder)
    size = model.image_size
    CLIPImageProcessor(
        size={"shortest_edge": size} if model.config["resize_mode"] == "shortest" else {"height": size, "width": size},
        resample=Image.Resampling[model.config["interpolation"].upper()],
        crop_size={"height": size, "width": size},
        image_mean=model.config["mean"],
        image_std=model.config["std"],
    ).save_pretrained(folder)
    transformers_tokenizer(model.tokenizer.context_length).save_pretrained(folder)


def transformers_tokenizer(context_length: int) -> CLIPTokenizer:
    """CLIP's tokenizer in transformers, with the vocabulary that comes with open_clip."""
    bpe = SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return CLIPTokenizer(
        vocab={special.get(token, token): index for token, index in bpe.encoder.items()},
        merges=sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.get),
        model_max_length=context_length,
    )
