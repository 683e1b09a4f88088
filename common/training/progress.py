"""Position and history of a training run: what resuming needs, and which epoch is the best."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Saved in last/ as progress.json."""

    epoch: int = 0  # complete epochs, with their validation
    batch: int = 0  # complete batches of the current epoch
    step: int = 0  # optimizer steps, skipped ones included
    skipped_steps: int = 0  # steps with a non-finite loss or gradient
    skipped_in_earlier_epochs: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each part over the current epoch's steps
    best: float = -math.inf  # highest validation score
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per epoch

    def record_epoch(self, values: dict[str, float], score: float) -> None:
        """Add an epoch to the history. score: higher is better."""
        if score > self.best:
            self.best, self.best_epoch = score, self.epoch
        self.history.append({"epoch": self.epoch + 1, "step": self.step, **values})

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
