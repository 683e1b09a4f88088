"""Tiny architectures of open_clip's kinds, registered with it, and weights of them saved by its own code."""

from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory, pretrained
from transformers import BertTokenizerFast, MT5Config, MT5Model, XLMRobertaConfig, XLMRobertaModel

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red house two cats sleep under the tree in garden , . !".split()
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None}
SIGLIP = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
DECODER = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
ARCHITECTURES: dict[str, dict[str, Any]] = {  # each after the published architecture in the comment
    "vit-quickgelu": {"quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},  # ViT-B-32-quickgelu
    "resnet": {"vision_cfg": VIT | {"layers": [1, 1, 1, 1], "patch_size": None}, "text_cfg": TEXT},  # RN50
    "eva": {"vision_cfg": TIMM, "text_cfg": TEXT, "custom_text": True},  # EVA02-B-16
    "convnext": {  # convnext_base
        "vision_cfg": TIMM | {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
    "siglip": {  # ViT-SO400M-14-SigLIP
        "vision_cfg": TIMM | {"timm_pool": "map", "timm_proj": "none"},
        "text_cfg": TEXT | SIGLIP | {"vocab_size": 30, "tokenizer_kwargs": {"clean": "canonicalize"}},
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
    },
    "clipa": {  # ViT-L-14-CLIPA
        "vision_cfg": VIT | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": TEXT
        | {
            "vocab_size": 30,
            "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last",
            "no_causal_mask": True,
        },
    },
    "mobile": {"vision_cfg": TIMM, "text_cfg": TEXT | {"no_causal_mask": True}, "custom_text": True},  # MobileCLIP-S1
    "coca": {  # coca_ViT-B-32
        "vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": DECODER,
        "custom_text": True,
    },
    "roberta": {"vision_cfg": VIT, "text_cfg": {"hf_pooler_type": "mean_pooler"}},  # xlm-roberta-base-ViT-B-32
    "mt5": {"vision_cfg": VIT, "text_cfg": {"hf_pooler_type": "mean_pooler"}},  # mt5-base-ViT-B-32
}
TAGS: dict[str, dict[str, Any]] = {  # what open_clip's table says of the published weights
    "vit-quickgelu": {"quick_gelu": True},
    "siglip": {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"},
    "clipa": {"mean": (0.485, 0.456, 0.406), "interpolation": "bilinear", "resize_mode": "squash"},
    "mobile": {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"},
}


def write_tower(kind: str, folder: Path) -> str:
    """A text encoder on disk, where the published architecture names one on the Hub."""
    sizes = {"vocab_size": 30, "pad_token_id": 0}
    if kind == "mt5":
        model: Any = MT5Model(MT5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, **sizes))
    else:
        model = XLMRobertaModel(
            XLMRobertaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, **sizes)
        )
    model.save_pretrained(folder)
    return str(folder)


def register(kind: str, folder: Path, monkeypatch) -> str:
    """-> name of an architecture known to open_clip, with weights under the tag 'published'."""
    folder.mkdir()
    architecture = {"embed_dim": 24, **ARCHITECTURES[kind]}
    text = dict(architecture["text_cfg"])
    if kind in ("roberta", "mt5"):
        text["hf_model_name"] = write_tower(kind, folder)
    if kind in ("roberta", "mt5", "siglip", "clipa"):
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
        text["hf_tokenizer_name"] = str(folder)
    name = f"tiny-{kind}"
    monkeypatch.setitem(factory._MODEL_CONFIGS, name, architecture | {"text_cfg": text})
    torch.manual_seed(0)
    network = open_clip.create_model(name)
    for parameter in network.parameters():  # its own start leaves much at zero
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), folder / "weights.pt")
    entry = pretrained._pcfg(file=str(folder / "weights.pt"), **TAGS.get(kind, {}))
    monkeypatch.setitem(pretrained._PRETRAINED, name, {"published": entry})
    return name
