"""Which weights learn: LoRA on the language model, the projector whole, the vision tower by choice.

loaded model -> the same model, or a PeftModel around it, in which exactly those parameters ask for a gradient
"""

import re

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import PreTrainedModel

PROJECTOR, VISION, LANGUAGE = "multi_modal_projector", "vision_tower", "language_model"


def set_trainable(
    model: PreTrainedModel, rank: int, alpha: int, dropout: float, train_vision_tower: bool, freeze_language_model: bool
) -> nn.Module:
    """rank 0: no LoRA, the language model learns whole, unless frozen. The projector always learns."""
    check_parts(model)
    if getattr(model, "is_quantized", False):
        if not rank or freeze_language_model:
            raise ValueError("--bits 4 and 8 freeze the language model's weights; give --lora_rank above 0")
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if rank and not freeze_language_model:
        whole = [PROJECTOR] + ([VISION] if train_vision_tower else [])
        # The tower's layers have the same names as the language model's, so the pattern says whose are meant.
        names = language_linears(model)
        pattern = rf".*\b{LANGUAGE}\b.*\.({'|'.join(map(re.escape, names))})"
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=rank,
                lora_alpha=alpha,
                lora_dropout=dropout,
                target_modules=pattern,
                modules_to_save=whole,
                task_type="CAUSAL_LM",
            ),
        )
        for parameter in adapted.parameters():
            if parameter.requires_grad:  # Adam's small steps are lost in half formats
                parameter.data = parameter.data.to(torch.float32)
        return adapted
    for name, parameter in model.named_parameters():
        part = part_of(name)
        learns = {PROJECTOR: True, VISION: train_vision_tower, LANGUAGE: not freeze_language_model}[part]
        parameter.requires_grad_(learns)
    return model


def part_of(name: str) -> str:
    """A parameter's name -> the part that it belongs to; the head belongs to the language model."""
    return next((part for part in (PROJECTOR, VISION) if part in name.split(".")), LANGUAGE)


def language_linears(model: PreTrainedModel) -> list[str]:
    """Last names of the linear layers in the language model: q_proj, down_proj, ...; the head is none of them."""
    return sorted(
        {
            name.rsplit(".", 1)[1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and LANGUAGE in name.split(".")
        }
    )


def check_parts(model: PreTrainedModel) -> None:
    parts = {part for name, _ in model.named_modules() for part in name.split(".")}
    if missing := [part for part in (PROJECTOR, VISION, LANGUAGE) if part not in parts]:
        raise ValueError(
            f"{model.config.model_type}: has no {' and no '.join(missing)}; known are Llava, LlavaNext and InternVL"
        )
