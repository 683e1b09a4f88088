"""How is a model built again? Settings -> a recipe of plain values -> the model; a checkpoint holds the recipe.

best.pt       recipe + what was trained: a few dozen MB, next to the published BLIP-2 and EfficientNet it names
a full file   the same with every weight in it, which needs nothing else
"""

import hashlib
import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from blip2_gated.backbone import build_blip2, fit_config, is_config, read_blip2, read_config, tokenizer_from
from blip2_gated.backbone import train_tokenizer as learn_tokenizer
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from common.models.checkpoint_file import save_model
from common.models.model_folder import load_model

KIND = "blip2_gated"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SAMPLED = 16  # values of each tensor that a fingerprint looks at


def make_recipe(settings: Namespace, labels: Iterable[str], texts: list[str], answers: Iterable[str]) -> dict[str, Any]:
    """labels: of the training set's styles; texts: what a tokenizer is learnt from where BLIP-2 is built from scratch;
    answers: of the training set, for how they spell the styles."""
    scratch = is_config(settings.model_blip2)
    blip2: dict[str, Any] = {"source": settings.model_blip2}
    tokenizer = None
    if scratch:
        config = read_config(settings.model_blip2)
        learnt = learn_tokenizer(texts, config["text_config"]["vocab_size"])
        blip2, tokenizer = {"config": fit_config(config, learnt)}, learnt.backend_tokenizer.to_str()
    gated = settings.model_gating_type != "none"
    labels = sorted(set(labels))
    return {
        "blip2": blip2,
        "tokenizer": tokenizer,
        "frozen_dtype": settings.model_frozen_dtype,
        "efficientnet": {
            "name": settings.model_efficientnet_name,
            "pretrained": settings.model_efficientnet_weights,
            "image_size": settings.model_efficientnet_image_size or None,
            "output_dim": settings.model_efficientnet_output_dim,
        }
        if gated
        else None,
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
        "labels": labels,
        "spellings": sorted({answer for answer in answers if len(answer.split()) <= 6}) if labels else [],
    }


def build_gated(recipe: dict[str, Any]) -> Blip2OPTGated:
    """The model of a recipe, its trained parts at their start."""
    elsewhere = []
    if "config" in recipe["blip2"]:
        tokenizer, blip2 = tokenizer_from(recipe["tokenizer"]), build_blip2(recipe["blip2"]["config"])
    else:
        blip2, tokenizer = read_blip2(recipe["blip2"]["source"])
        elsewhere.append("blip2")
    efficientnet = dict(recipe["efficientnet"]) if recipe["efficientnet"] else None
    if efficientnet and efficientnet["pretrained"]:
        elsewhere.append("efficientnet")
    styles = StyleVocabulary(tokenizer, recipe["labels"], recipe["spellings"])
    model = Blip2OPTGated(
        blip2,
        tokenizer,
        styles,
        efficientnet,
        recipe["gating"],
        recipe["mapper"],
        recipe["lora"],
        recipe["trained"],
        recipe["template"],
        recipe["max_tokens"],
        elsewhere,
    )
    for part in (blip2.qformer, blip2.language_projection):
        part.float()
    blip2.query_tokens.data = blip2.query_tokens.data.float()
    return model


def store_frozen(model: Blip2OPTGated, dtype: str, device: torch.device) -> None:
    """Keep what does not learn of BLIP-2 in a smaller number format. 'auto': bf16 on a GPU, else fp32; fp16 is not
    offered, in which the published vision tower overflows."""
    if dtype == "auto":
        dtype = "bf16" if device.type == "cuda" else "fp32"
    if dtype not in DTYPES:
        raise ValueError(f"--model.frozen_dtype {dtype}: expected auto, {', '.join(DTYPES)}")
    if model.trained != "all":
        model.blip2.vision_model.to(DTYPES[dtype])
        model.blip2.language_model.to(DTYPES[dtype])


def save_gated(path: str | Path, model: Blip2OPTGated, recipe: dict[str, Any], **facts: Any) -> None:
    """What was trained, and how to have the rest again."""
    save_model(path, model, KIND, recipe, fingerprint=fingerprint(model), **facts)


def save_full(path: str | Path, model: Blip2OPTGated, recipe: dict[str, Any], **facts: Any) -> None:
    """Every weight: a file that needs neither hub nor folders."""
    config = json.loads(model.blip2.config.to_json_string(use_diff=False))
    whole = {**recipe, "blip2": {"config": config}, "tokenizer": model.prompts.tokenizer.backend_tokenizer.to_str()}
    if recipe["efficientnet"]:
        whole["efficientnet"] = {**recipe["efficientnet"], "pretrained": False}
    left_out, model.elsewhere = model.elsewhere, set()
    try:
        save_model(path, model, KIND, whole, fingerprint="", **facts)
    finally:
        model.elsewhere = left_out


def load_gated(
    path: str | Path, device: torch.device | str = "cpu", blip2: str = "", efficientnet: str = ""
) -> tuple[Blip2OPTGated, dict[str, Any]]:
    """A file of save_gated or save_full, a folder that tools/push_to_hub.py wrote, or a name on the Hub -> the model in
    eval(), the file's content without weights.

    blip2, efficientnet: where their weights lie now, if not where they lay in training. Other weights are an error.
    """
    content = load_model(path, KIND)
    recipe = content["build"]
    if blip2 and "source" in recipe["blip2"]:
        recipe["blip2"] = {"source": blip2}
    if efficientnet and recipe["efficientnet"]:
        recipe["efficientnet"]["pretrained"] = efficientnet
    model = build_gated(recipe)
    if content["fingerprint"] and content["fingerprint"] != fingerprint(model):
        raise ValueError(
            f"{path}: was trained with another BLIP-2 or EfficientNet than {recipe['blip2'].get('source', 'its own')} "
            f"and {(recipe['efficientnet'] or {}).get('pretrained')}; name those with --blip2 and --efficientnet"
        )
    model.load_state_dict(content.pop("model_state_dict"))
    store_frozen(model, recipe["frozen_dtype"], torch.device(device))
    return model.to(device).eval(), content


def fingerprint(model: Blip2OPTGated) -> str:
    """Of the weights that a checkpoint leaves out: names, shapes and some values of each, in any number format; ''
    where it leaves out none."""
    digest = hashlib.blake2b(digest_size=12)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name in sorted(model.elsewhere & set(tensors)):
        values = tensors[name].detach().flatten()
        values = values[:: max(1, len(values) // SAMPLED)][:SAMPLED].bfloat16().float().cpu()
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest() if model.elsewhere else ""
