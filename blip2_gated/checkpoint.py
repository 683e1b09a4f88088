"""Checkpoints: settings to the arguments of the model, and a file and back.

best.pt       build arguments and trained weights, a few dozen MB; needs the BLIP-2 and the EfficientNet that it names
a full file   build arguments and every weight; needs nothing else
"""

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from blip2_gated.backbone import fit_config, is_config, make_tokenizer, read_config
from blip2_gated.dataset import VqaSample
from blip2_gated.efficientnet import read_style_build
from blip2_gated.model import Blip2OPTGated
from blip2_gated.pretrained import KIND
from common.models.checkpoint_file import save_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_arguments(settings: Namespace, samples: Iterable[VqaSample]) -> dict[str, Any]:
    """Plain values that Blip2OPTGated.from_build makes a model of.

    samples: of the training set, for the style labels, their spellings in answers and, if BLIP-2 is built from scratch,
    the vocabulary.
    """
    blip2: dict[str, Any] = {"source": settings.model_blip2}
    if is_config(settings.model_blip2):
        config = read_config(settings.model_blip2)
        tokenizer = make_tokenizer(
            [f"{settings.data_prompt.format(sample.question)} {sample.answer}\n" for sample in samples],
            config["text_config"]["vocab_size"],
        )
        blip2 = {"config": fit_config(config, tokenizer), "tokenizer": tokenizer.backend_tokenizer.to_str()}
    labels = sorted({sample.style for sample in samples if sample.style})
    spellings = sorted({sample.answer for sample in samples if len(sample.answer.split()) <= 6}) if labels else []
    model = {
        "efficientnet": _efficientnet(settings) if settings.model_gating_type != "none" else None,
        "gating": {
            "kind": settings.model_gating_type,
            "per_head": settings.model_gating_per_head,
            "init_scale": settings.model_gating_init_scale,
        },
        "mapper": {
            "num_tokens": settings.model_prompt_mapper_num_tokens,
            "hidden": settings.model_prompt_mapper_hidden,
            "dropout": settings.model_prompt_mapper_dropout,
        },
        "lora": {
            "rank": settings.model_lora_rank,
            "alpha": settings.model_lora_alpha,
            "dropout": settings.model_lora_dropout,
        }
        if settings.model_lora_enabled
        else None,
        "trained": settings.model_train,
        "template": settings.data_prompt,
        "max_tokens": settings.data_max_tokens,
    }
    return {
        "blip2": blip2,
        "frozen_dtype": settings.model_frozen_dtype,
        "labels": labels,
        "spellings": spellings,
        "model": model,
    }


def _efficientnet(settings: Namespace) -> dict[str, Any]:
    weights = settings.model_efficientnet_weights
    style_encoder = read_style_build(weights)
    return {
        "name": style_encoder["model_name"] if style_encoder else settings.model_efficientnet_name,
        "pretrained": weights,
        "image_size": settings.model_efficientnet_image_size or None,
        "output_dim": settings.model_efficientnet_output_dim,
        "style_encoder": style_encoder,
    }


def save_gated(path: str | Path, model: Blip2OPTGated, build: dict[str, Any], **metadata: Any) -> None:
    """The trained weights, and a fingerprint of the others."""
    save_model(path, model, KIND, build, fingerprint=model.fingerprint, **metadata)


def save_full(path: str | Path, model: Blip2OPTGated, build: dict[str, Any], **metadata: Any) -> None:
    """Every weight: a file that needs neither the Hub nor folders."""
    blip2 = {
        "config": json.loads(model.blip2.config.to_json_string(use_diff=False)),
        "tokenizer": model.prompts.tokenizer.backend_tokenizer.to_str(),
    }
    efficientnet = build["model"]["efficientnet"]
    arguments = {**build["model"], "efficientnet": {**efficientnet, "pretrained": False} if efficientnet else None}
    external, model.external_weights = model.external_weights, set()
    try:
        save_model(path, model, KIND, {**build, "blip2": blip2, "model": arguments}, fingerprint="", **metadata)
    finally:
        model.external_weights = external


def load_gated(
    path: str | Path, device: torch.device | str = "cpu", blip2: str = "", efficientnet: str = ""
) -> tuple[Blip2OPTGated, dict[str, Any]]:
    """Blip2OPTGated.open on `device`, its frozen towers in the dtype that it was trained with."""
    model, content = Blip2OPTGated.open(path, blip2, efficientnet)
    store_frozen(model, content["build"]["frozen_dtype"], torch.device(device))
    return model.to(device), content


def store_frozen(model: Blip2OPTGated, dtype: str, device: torch.device) -> None:
    """Store the frozen towers of BLIP-2 in a smaller dtype. 'auto': bf16 on a GPU, else fp32; not fp16, in which the
    published vision tower overflows."""
    if dtype == "auto":
        dtype = "bf16" if device.type == "cuda" else "fp32"
    if model.trained != "all":
        model.blip2.vision_model.to(DTYPES[dtype])
        model.blip2.language_model.to(DTYPES[dtype])
