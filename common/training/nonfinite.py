"""What becomes of an optimizer step whose loss or gradient is not finite: it is left out, counted, and named.

loss, gradient norm of every device -> one answer for all -> the batch statistics as before the step, one line in
skipped_steps.jsonl; a row of them is no accident any more, and ends the run with the names of the last one's files

Leaving out the optimizer is not enough: a forward pass in training has already written into the running means of batch
normalisation, and one image of NaN would stay there for good.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import nn
from tqdm import tqdm

SHOWN = 8  # files named in a message; skipped_steps.jsonl names all


class NonFiniteGuard:
    """model: on its device already. limit: bad steps in a row that end the run. log: skipped_steps.jsonl, or None."""

    def __init__(self, model: nn.Module, limit: int, log: Path | None, advice: str, total: int = 0):
        """advice: how the last message ends. total: bad steps of the run so far, where it goes on."""
        if limit < 1:
            raise ValueError(f"max_nonfinite_steps {limit}: expected 1 or more")
        self.limit, self.log, self.advice, self.total = limit, log, advice, total
        self.in_a_row = 0
        self.buffers = list(model.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]

    def remember(self) -> None:
        """At the start of a step: keep what its forward passes will change."""
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)

    def leave_out(self, step: int, what: str, files: list[str]) -> None:
        """Undo what a bad step has changed, and say so. step: number that it would have had, from 1.

        ValueError where it is the last that the limit allows.
        """
        with torch.no_grad():
            for buffer, before in zip(self.buffers, self.before):
                buffer.copy_(before)
        self.total += 1
        self.in_a_row += 1
        if self.log:  # the main process
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "found": what, "files": files}, ensure_ascii=False) + "\n")
        names = ", ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "")
        if self.in_a_row >= self.limit:
            raise ValueError(
                f"{what} is not finite at step {step}, the last of {self.in_a_row} such steps in a row; its files: "
                f"{names}; {self.advice}"
            )
        if self.log:
            tqdm.write(f"left out: step {step}, {what} is not finite; its files: {names}", file=sys.stderr)


def nonfinite_part(loss: torch.Tensor, norm: torch.Tensor | float | None) -> str:
    """'' where loss and gradient norm are finite on every device, else which of the two is not: equal on all devices.

    Waits for the device.
    """
    bad = [~loss.detach().isfinite().all()]
    if norm is not None:
        bad.append(~torch.as_tensor(norm, device=loss.device).isfinite())
    flags = torch.stack(bad).int()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    found = flags.tolist()
    return "the loss" if found[0] else "the gradient" if any(found) else ""
