"""Training schedule: length and speed of a run, and the learning rate of each optimizer step."""

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
    max_nonfinite_steps: int = 5  # consecutive skipped steps that end the run
    patience: int = 0  # epochs without a better validation score after which training stops; 0 = never

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Linear warmup, then a cosine to min_learning_rate at the last step."""
        total = max(self.epochs * steps_per_epoch, 1)
        warmup = min(self.warmup_steps, total // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        share = (step - warmup) / max(total - warmup, 1)
        spread = self.learning_rate - self.min_learning_rate
        return self.min_learning_rate + spread * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, schedule: TrainSchedule
) -> float:
    """Set the rate of every parameter group for `step` -> the rate before their scales."""
    rate = schedule.rate_at(step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    return rate
