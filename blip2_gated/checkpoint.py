"""Checkpoints: settings to the arguments of the model, the model, a file and back.

best.pt       build arguments and trained weights, a few dozen MB; needs the BLIP-2 and the EfficientNet that it names
a full file   build arguments and every weight; needs nothing else
"""

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Required

import torch
from typing_extensions import TypedDict

from blip2_gated.backbone import (
    build_blip2,
    fit_config,
    is_config,
    make_tokenizer,
    read_blip2,
    read_config,
    tokenizer_from_json,
)
from blip2_gated.dataset import VqaSample
from blip2_gated.efficientnet import read_style_build
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from common.models.build_arguments import building
from common.models.checkpoint_file import save_model, weights_digest
from common.models.model_folder import is_hub_name, load_model
from common.text.files import check_file
from common.text.schema import check_type

KIND = "blip2_gated"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class BLIP2(TypedDict, total=False):
    """Either source, or config and tokenizer."""

    source: str
    config: dict[str, Any]
    tokenizer: str  # JSON


class Model(TypedDict, total=False):
    efficientnet: Required[dict[str, Any] | None]
    gating: dict[str, Any]
    mapper: dict[str, Any]
    lora: dict[str, Any] | None
    trained: str
    template: str
    max_tokens: int


class Build(TypedDict):
    """What build_arguments makes."""

    blip2: BLIP2
    frozen_dtype: Literal["auto", "fp32", "bf16"]
    labels: list[str]
    spellings: list[str]
    model: Model


def build_arguments(settings: Namespace, samples: Iterable[VqaSample]) -> dict[str, Any]:
    """Plain values that build_gated makes a model of.

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


def build_gated(build: dict[str, Any]) -> Blip2OPTGated:
    """The model of build_arguments, with untrained gates, mapper and style head."""
    if "config" in build["blip2"]:
        tokenizer, blip2 = tokenizer_from_json(build["blip2"]["tokenizer"]), build_blip2(build["blip2"]["config"])
    else:
        blip2, tokenizer = read_blip2(build["blip2"]["source"])
    has_source = {
        "blip2": "source" in build["blip2"],
        "efficientnet": (build["model"]["efficientnet"] or {}).get("pretrained"),
    }
    model = Blip2OPTGated(
        blip2,
        tokenizer,
        StyleVocabulary(tokenizer, build["labels"], build["spellings"]),
        **build["model"],
        external=[part for part, source in has_source.items() if source],
    )
    blip2.qformer.float()
    blip2.language_projection.float()
    blip2.query_tokens.data = blip2.query_tokens.data.float()
    return model


def store_frozen(model: Blip2OPTGated, dtype: str, device: torch.device) -> None:
    """Store the frozen towers of BLIP-2 in a smaller dtype. 'auto': bf16 on a GPU, else fp32; not fp16, in which the
    published vision tower overflows."""
    if dtype == "auto":
        dtype = "bf16" if device.type == "cuda" else "fp32"
    if model.trained != "all":
        model.blip2.vision_model.to(DTYPES[dtype])
        model.blip2.language_model.to(DTYPES[dtype])


def save_gated(path: str | Path, model: Blip2OPTGated, build: dict[str, Any], **metadata: Any) -> None:
    """The trained weights, and a fingerprint of the others."""
    save_model(path, model, KIND, build, fingerprint=fingerprint(model), **metadata)


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
    """A file of save_gated or save_full, a folder of tools/push_to_hub.py, or a name on the Hub -> the model in eval(),
    the file's content without weights.

    blip2, efficientnet: locations of their weights, if not as in training. Other weights are an error.
    """
    if not is_hub_name(path) and not Path(path).is_dir():
        check_file(path, "train.py writes checkpoints/blip2_gated/best.pt")
    content = load_model(path, KIND)
    build: Any = check_type(content["build"], Build, f"{path}: build")
    arguments = build["model"]["efficientnet"] or {}
    if blip2 and "source" in build["blip2"]:
        build["blip2"] = {"source": blip2}
    if efficientnet and arguments:
        arguments["pretrained"] = efficientnet
    weights = content.pop("model_state_dict")
    whole = "config" in build["blip2"] and not arguments.get("pretrained")  # else most weights are in other files
    try:
        with building(path, build, weights if whole else None):
            model = build_gated(build)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: needs weights that it does not hold, and {error}; name them with --blip2 and --efficientnet"
        ) from error
    if content.get("fingerprint") and content["fingerprint"] != fingerprint(model):
        raise ValueError(
            f"{path}: was trained with another BLIP-2 or EfficientNet than {build['blip2'].get('source', 'its own')} "
            f"and {arguments.get('pretrained')}; name those with --blip2 and --efficientnet"
        )
    with building(path, build):
        model.load_state_dict(weights)
    store_frozen(model, build["frozen_dtype"], torch.device(device))
    return model.to(device).eval(), content


def fingerprint(model: Blip2OPTGated) -> str:
    """Of the weights that a checkpoint does not hold; '' if it holds all."""
    external = {
        name: tensor
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if name in model.external_weights
    }
    return weights_digest(external, sampled=True) if external else ""
