"""One optimizer step of any system, as plain parts: what is measured and what is estimated are the same step.

a folder's estimate.py -> TrainingStep -> build() the model, batch() its input, take_step() forward, backward, optimizer

Nothing here reads data: a batch has the shapes that the settings ask for, and pixels without meaning.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.operations import convert_to_fp32
from torch import nn
from transformers import Trainer, TrainingArguments

Batch = dict[str, torch.Tensor]
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingStep:
    """What a system's settings ask for.

    build(precision, checkpointing): the model in training mode, its parameters asking for a gradient or not; random
    weights, nothing is read but configs. batch(samples): the arguments of its forward, whose first output is the loss.
    """

    build: Callable[[str, bool], nn.Module]
    batch: Callable[[int], Batch]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    samples: int  # of one forward pass on one device
    what: str  # the model and the batch in words
    unit: str = "images"  # what a sample is
    accumulation: int = 1  # forward passes of an optimizer step
    clip_norm: float = 1.0  # 0 = no limit
    average: bool = False  # a moving average of the weights is kept
    checkpointing: bool | None = False  # what the settings say; None: the system has none
    engines: tuple[str, ...] = ("DDP",)  # what it can be divided by
    notes: Sequence[str] = field(default_factory=tuple)  # what the settings leave open and is taken for granted


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of our own loop. Its groups differ in rate and decay alone, which costs nothing."""
    return torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], fused=True)


def by_trainer(arguments: TrainingArguments) -> dict[str, Any]:
    """What Hugging Face's Trainer settles of a step: parts of a TrainingStep."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        return kind([one for one in model.parameters() if one.requires_grad], **options)

    return {
        "optimizer": optimizer,
        "samples": arguments.per_device_train_batch_size,
        "unit": "samples",
        "accumulation": arguments.gradient_accumulation_steps,
        "clip_norm": arguments.max_grad_norm,
        "checkpointing": bool(arguments.activation_checkpointing),
        "engines": ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3"),
    }


def share_of(batch_size: int, world: int, flag: str) -> int:
    """Samples of one device, where the setting counts those of all."""
    if batch_size < 1 or world < 1 or batch_size % world:
        raise ValueError(f"{flag} {batch_size}: cannot be shared equally by {world} device(s)")
    return batch_size // world


def without_values(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Pixels of an image: their size counts, not what they show."""
    return torch.empty(shape, dtype=dtype, device="meta")


def with_values(batch: Batch) -> Batch:
    """The same with random pixels, for a step that is really taken."""
    return {
        name: value
        if value.device.type != "meta"
        else torch.randint(256, value.shape).to(value.dtype)
        if not value.is_floating_point()
        else torch.randn(value.shape, dtype=value.dtype)
        for name, value in batch.items()
    }


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    precision: str,
    clip_norm: float = 1.0,
    at: Callable[[str], Any] = lambda phase: nullcontext(),
) -> None:
    """As both trainers take it (ours and Hugging Face's). at: called with 'forward', 'backward' and 'optimizer'."""
    for batch in batches:
        at("forward")
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(**batch)
        loss = (convert_to_fp32(outputs) if precision == "bf16" else outputs)[0]
        del outputs
        at("backward")
        (loss / len(batches)).backward()
        del loss
    at("optimizer")
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.nn.utils.clip_grad_norm_(learning, clip_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad()
