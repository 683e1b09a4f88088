"""One optimizer step of any system: the same step is estimated here and measured by the benchmarks.

settings -> TrainingStep -> build() the model, batch() its input, take_step() forward, backward, optimizer

No data is read: a batch has the shapes that the settings ask for, and no pixels.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.operations import convert_to_fp32
from torch import nn
from transformers import Trainer, TrainingArguments

Batch = dict[str, torch.Tensor]
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainingStep:
    """The step that a system's settings describe.

    build(precision, checkpointing): the model in training mode with requires_grad set; random weights, only configs are
    read. batch(samples): the arguments of its forward, whose first output is the loss.
    """

    build: Callable[[str, bool], nn.Module]
    batch: Callable[[int], Batch]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    samples: int  # of one forward pass on one device
    description: str  # of model and batch
    unit: str = "images"  # of `samples`
    accumulation: int = 1  # forward passes of an optimizer step
    clip_norm: float = 1.0  # 0 = no limit
    moving_average: bool = False  # whether a moving average of the weights is kept
    checkpointing: bool | None = False  # as the settings have it; None: the system has none
    engines: tuple[str, ...] = ("DDP",)  # by which it can be divided
    assumptions: Sequence[str] = ()  # where the settings leave a choice


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of common/training/trainer.py, in one group: groups cost no memory."""
    return torch.optim.AdamW(trainable_parameters(model), fused=True)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def trainer_options(arguments: TrainingArguments) -> dict[str, Any]:
    """The fields of a TrainingStep that Hugging Face's Trainer determines."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        return kind(trainable_parameters(model), **options)

    return {
        "optimizer": optimizer,
        "samples": arguments.per_device_train_batch_size,
        "unit": "samples",
        "accumulation": arguments.gradient_accumulation_steps,
        "clip_norm": arguments.max_grad_norm,
        "checkpointing": bool(arguments.activation_checkpointing),
        "engines": ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3"),
    }


def samples_per_device(batch_size: int, world: int, flag: str) -> int:
    """Of a setting that counts the samples of all devices."""
    if batch_size < 1 or batch_size % world:
        raise ValueError(f"{flag} {batch_size}: cannot be shared equally by {world} device(s)")
    return batch_size // world


def meta_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An input whose values do not matter, such as pixels."""
    return torch.empty(shape, dtype=dtype, device="meta")


def random_batch(batch: Batch) -> Batch:
    """The batch with random values in place of meta tensors, for a step that is really taken."""

    def values(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "meta":
            return tensor
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, dtype=tensor.dtype)
        return torch.randint(256, tensor.shape).to(tensor.dtype)

    return {name: values(tensor) for name, tensor in batch.items()}


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    precision: str,
    clip_norm: float = 1.0,
    enter: Callable[[str], Any] = lambda phase: nullcontext(),
) -> None:
    """As both trainers take it (ours and Hugging Face's). enter: called with 'forward', 'backward' and 'optimizer'."""
    device = next(model.parameters()).device
    for batch in batches:
        enter("forward")
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(**batch)
        loss = (convert_to_fp32(outputs) if precision == "bf16" else outputs)[0]
        del outputs
        enter("backward")
        (loss / len(batches)).backward()
        del loss
    enter("optimizer")
    torch.nn.utils.clip_grad_norm_(trainable_parameters(model), clip_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad()
