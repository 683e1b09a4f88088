"""Trainable parts of a vision-language model: whole, frozen, or with LoRA (Hu et al. 2022, arXiv 2106.09685).

model with a vision tower, a projector and a language model -> the model, or a PeftModel around it
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

VISION, PROJECTOR, LANGUAGE = "vision_tower", "multi_modal_projector", "language_model"
STYLE = "style_projector"  # of llava/style_tower.py, where a model has it
MODULES = {  # names in transformers' models; whatever has none of them belongs to the language model
    STYLE: {STYLE},
    PROJECTOR: {
        *("multi_modal_projector", "connector", "aligner", "projector", "vision_projection", "mm_projector"),
        *("merger", "deepstack_merger_list"),  # of Qwen-VL and GLM-V, within the tower
        *("embed_vision", "visual_embeddings_table"),  # Gemma 3n, Ovis 2
    },
    VISION: {
        *("vision_tower", "visual", "vision_model", "vision_encoder", "image_tower"),
        *("vqmodel", "generation_embeddings", "generation_aligner", "generation_head"),  # Janus's images, not generated
    },
}


@dataclass(frozen=True)
class Lora:
    rank: int
    alpha: int  # the scale is alpha / rank


def set_trainable(
    model: nn.Module, parts: Mapping[str, bool | Lora], dropout: float = 0.0, task_type: str | None = None
) -> nn.Module:
    """parts: for each of VISION, PROJECTOR, LANGUAGE and, if there is one, STYLE: True (all weights), False (frozen),
    or a Lora of its linear layers; the head belongs to the language model.

    Checkpoints of a PeftModel hold the LoRA and a copy of every part that is trained whole.
    """
    present = {part_of(name) for name, _ in model.named_parameters()}
    if missing := [part for part in parts if part not in present]:
        raise ValueError(f"{type(model).__name__}: has no {' and no '.join(missing)}; it is no vision-language model")
    if not any(parts.values()):
        raise ValueError("vision tower, projector and language model are all frozen; nothing is left to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parts[part_of(name)] is True)
    loras = {part: how for part, how in parts.items() if isinstance(how, Lora)}
    if not loras:
        return model
    default = next(iter(loras.values()))
    special = {
        rf"{re.escape(name)}\..*": lora
        for part, lora in loras.items()
        if lora != default
        for name in outermost(model, {part})
    }
    # peft trains copies of these; a head that shares its weights with the embeddings is then trained apart from them.
    whole = list(outermost(model, {part for part, how in parts.items() if how is True}))
    others = "|".join(map(re.escape, outermost(model, parts.keys() - loras.keys())))
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=default.rank,
            lora_alpha=default.alpha,
            lora_dropout=dropout,
            rank_pattern={pattern: lora.rank for pattern, lora in special.items()},
            alpha_pattern={pattern: lora.alpha for pattern, lora in special.items()},
            target_modules="all-linear",  # the head excepted
            exclude_modules=rf"({others}|(.*\.)?(lm_head|router))(\..*)?",
            modules_to_save=whole or None,
            task_type=task_type,
        ),
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # small steps of Adam are lost in half precision
            parameter.data = parameter.data.to(torch.float32)
    return adapted


def part_of(name: str) -> str:
    """A parameter's name -> STYLE, VISION, PROJECTOR or LANGUAGE."""
    words = name.split(".")
    return next((part for part, names in MODULES.items() if not names.isdisjoint(words)), LANGUAGE)


def outermost(model: nn.Module, parts: Collection[str], prefix: str = "") -> Iterator[str]:
    """Names of the largest modules all of whose parameters belong to some parts."""
    owners = {part_of(prefix + name) for name, _ in model.named_parameters(remove_duplicate=False)}
    if owners and owners.issubset(parts) and prefix and not isinstance(model, nn.ModuleList):
        yield prefix.removesuffix(".")
    elif not owners.isdisjoint(parts):
        for name, child in model.named_children():
            yield from outermost(child, parts, f"{prefix}{name}.")


def merged(model: nn.Module) -> nn.Module:
    """The model of a PeftModel with its LoRA added to the weights, or the model as it is."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model
