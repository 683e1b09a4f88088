"""Schedule and progress of a run: its length, the learning rate of each step, how far it is, and its best epoch."""

import math
from dataclasses import dataclass, field
from typing import Any

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


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, schedule: TrainSchedule
) -> float:
    """Set the rate of `step` -> that rate before the scales of groups.

    Linear warmup, then a cosine to min_learning_rate at the last step, where it stays.
    """
    total = max(schedule.epochs * steps_per_epoch, 1)
    warmup = min(schedule.warmup_steps, total // 2)
    if step < warmup:
        rate = schedule.learning_rate * (step + 1) / warmup
    else:
        share = min((step - warmup) / max(total - warmup, 1), 1.0)  # a cosine beyond its end would rise
        spread = schedule.learning_rate - schedule.min_learning_rate
        rate = schedule.min_learning_rate + spread * (1 + math.cos(math.pi * share)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    return rate


@dataclass
class Progress:
    """What resuming needs of a run, saved in last/ as progress.json."""

    epoch: int = 0  # complete epochs, with their validation
    batch: int = 0  # complete batches of the current epoch
    step: int = 0  # optimizer steps, skipped ones included
    skipped_steps: int = 0  # steps with a non-finite loss or gradient
    skipped_in_earlier_epochs: int = 0
    sums: dict[str, Any] = field(default_factory=dict)  # of each part over the epoch's steps, on the device meanwhile
    best: float = -math.inf  # highest validation score
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per epoch

    @property
    def is_best(self) -> bool:
        """Whether the epoch that has just been recorded is the best so far."""
        return self.best_epoch == len(self.history) - 1

    def is_out_of_patience(self, patience: int) -> bool:
        """patience: epochs without a better score after which training stops; 0 = never."""
        return bool(patience) and len(self.history) - 1 - self.best_epoch >= patience

    def results(self) -> dict[str, Any]:
        """What the results file of every run holds."""
        return {
            "epochs": self.epoch,
            "steps": self.step,
            "skipped_steps": self.skipped_steps,
            "best_epoch": self.best_epoch + 1,
            "best": self.history[self.best_epoch],
            "history": self.history,
        }
