"""What a run of the loop is to do: how long, how fast, and the learning rate of each of its steps."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainSchedule:
    epochs: int
    learning_rate: float  # at its peak; a parameter group's own 'scale' multiplies it
    min_learning_rate: float = 0.0
    warmup_steps: int = 0
    clip_norm: float = 0.0  # 0 = no limit
    accumulation: int = 1  # batches per optimizer step
    log_steps: int = 10
    save_steps: int = 200
    max_nonfinite_steps: int = 5  # in a row, their loss or gradient not finite, that end the run


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, plan: TrainSchedule) -> float:
    """Linear warmup, then a cosine to min_learning_rate at the last step -> the rate at `step`."""
    total = max(plan.epochs * steps_per_epoch, 1)
    warmup = min(plan.warmup_steps, total // 2)
    if step < warmup:
        rate = plan.learning_rate * (step + 1) / warmup
    else:
        share = (step - warmup) / max(total - warmup, 1)
        rate = (
            plan.min_learning_rate + (plan.learning_rate - plan.min_learning_rate) * (1 + math.cos(math.pi * share)) / 2
        )
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    return rate
