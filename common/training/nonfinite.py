"""Guard against non-finite losses and gradients: such optimizer steps are skipped, counted and logged.

loss, gradient norm of every device -> one decision for all -> batch statistics as before the step, one line in
skipped_steps.jsonl; several in a row end the run with the names of the last step's files

Skipping the optimizer is not enough: a forward pass in training has already updated the running statistics of batch
normalisation, and one image of NaN would stay in them for good.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import nn
from tqdm import tqdm

from common.training.distributed import is_distributed

FILES_SHOWN = 8  # in a message; skipped_steps.jsonl lists all


class NonFiniteGuard:
    """limit: consecutive steps that end the run. log: skipped_steps.jsonl on the main process, else None."""

    def __init__(self, model: nn.Module, limit: int, log: Path | None, advice: str, total: int = 0):
        """model: on its device already. advice: end of the error message. total: steps skipped before a resume."""
        if limit < 1:
            raise ValueError(f"max_nonfinite_steps {limit}: expected 1 or more")
        self.limit, self.log, self.advice, self.total, self.consecutive = limit, log, advice, total, 0
        self.buffers = list(model.buffers())
        self.saved_buffers = [buffer.clone() for buffer in self.buffers]

    def save_buffers(self) -> None:
        """Call at the start of a step, whose forward passes change the buffers."""
        if self.buffers:
            torch._foreach_copy_(self.saved_buffers, self.buffers)

    def check(self, loss: torch.Tensor, norm: torch.Tensor | float | None) -> str:
        """'' if loss and gradient norm are finite on every device, else which of them is not; equal on all devices.

        Waits for the device.
        """
        gradient = torch.as_tensor(0.0 if norm is None else norm, device=loss.device)
        flags = torch.stack([~loss.detach().isfinite().all(), ~gradient.isfinite()]).int()
        if is_distributed():
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        if flags.any():
            return "the loss" if flags[0] else "the gradient"
        self.consecutive = 0
        return ""

    def skip_step(self, step: int, cause: str, files: list[str]) -> None:
        """Restore the buffers and report. step: its number, from 1. ValueError for the last one that `limit` allows."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.saved_buffers)
        self.total += 1
        self.consecutive += 1
        if self.log:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "nonfinite": cause, "files": files}, ensure_ascii=False) + "\n")
        names = ", ".join(files[:FILES_SHOWN])
        names += f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
        if self.consecutive >= self.limit:
            raise ValueError(
                f"{cause} is not finite at step {step}, the last of {self.consecutive} such steps in a row; its files: "
                f"{names}; {self.advice}"
            )
        if self.log:
            tqdm.write(f"skipped: step {step}, {cause} is not finite; its files: {names}", file=sys.stderr)
