"""Guard against non-finite losses and gradients: such optimizer steps are skipped, counted and logged.

loss, gradient norm of every device -> one flag for all, on the device -> the fused optimizer's found_inf; batch
statistics as before the step; one line in skipped_steps.jsonl when the flags are read; several in a row end the run
with the names of the last step's files

Nothing here waits for the device but `read`, which is called where a number is needed anyway. Skipping the optimizer is
not enough: a forward pass in training has already updated the running statistics of batch normalisation, and one image
of NaN would stay in them for good.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn
from tqdm import tqdm

from common.text.files import jsonl_line
from common.training.distributed import is_distributed

FILES_SHOWN = 8  # in a message; skipped_steps.jsonl lists all


class NonFiniteGuard:
    """limit: consecutive steps that end the run. log: skipped_steps.jsonl on the main process, else None.

    total, consecutive, stop_signal: as of the last `read`.
    """

    def __init__(self, model: nn.Module, limit: int, log: Path | None, advice: str, total: int = 0):
        """model: on its device already. advice: end of the error message. total: steps skipped before a resume."""
        if limit < 1:
            raise ValueError(f"max_nonfinite_steps {limit}: expected 1 or more")
        self.limit, self.log, self.advice, self.total, self.consecutive = limit, log, advice, total, 0
        self.stop_signal = 0  # number of a signal that any process has received
        self.buffers = list(model.buffers())
        self.saved_buffers = [buffer.clone() for buffer in self.buffers]
        self.unread: list[tuple[int, torch.Tensor, Callable[[], list[str]]]] = []  # step, flags, its files

    def save_buffers(self) -> None:
        """Call at the start of a step, whose forward passes change the buffers."""
        if self.buffers:
            torch._foreach_copy_(self.saved_buffers, self.buffers)

    def check(
        self,
        step: int,
        loss: torch.Tensor,
        norm: torch.Tensor | float | None,
        files: Callable[[], list[str]],
        stop_signal: int = 0,
    ) -> torch.Tensor:
        """-> () bool on the device, equal on all of them: whether loss or gradient norm is not finite on any.

        The buffers are then those of save_buffers again. step: its number, from 1. files: called by `read`, on all
        processes. stop_signal: that this process has received.
        """
        loss = loss.detach()
        gradient = norm if isinstance(norm, torch.Tensor) else torch.full((), norm or 0.0, device=loss.device)
        signal = torch.full((), stop_signal, dtype=torch.int32, device=loss.device)
        flags = torch.stack([~loss.isfinite().all(), ~gradient.isfinite(), signal])  # int32
        if is_distributed():
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        skip = flags[:2].any()
        copy_where(skip, self.buffers, self.saved_buffers)
        self.unread.append((step, flags, files))
        return skip

    def read(self) -> list[int]:
        """Wait for the device and report the steps that were skipped since the last call -> their numbers.

        ValueError where they are more in a row than allowed.
        """
        skipped, unread = [], self.unread
        self.unread = []
        rows = torch.stack([flags for _, flags, _ in unread]).tolist() if unread else []
        for (step, _, files), (bad_loss, bad_gradient, stop_signal) in zip(unread, rows):
            self.stop_signal = self.stop_signal or stop_signal
            if bad_loss or bad_gradient:
                skipped.append(step)
                self._report(step, "the loss" if bad_loss else "the gradient", files())
            else:
                self.consecutive = 0
        return skipped

    def _report(self, step: int, cause: str, files: list[str]) -> None:
        self.total += 1
        self.consecutive += 1
        if self.log:
            with self.log.open("ab") as file:
                file.write(jsonl_line({"step": step, "nonfinite": cause, "files": files}))
        names = ", ".join(files[:FILES_SHOWN])
        names += f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
        if self.consecutive >= self.limit:
            raise ValueError(
                f"{cause} is not finite at step {step}, the last of {self.consecutive} such steps in a row; its files: "
                f"{names}; {self.advice}"
            )
        if self.log:
            tqdm.write(f"skipped: step {step}, {cause} is not finite; its files: {names}", file=sys.stderr)


def can_skip(optimizer: Any) -> bool:
    """Whether set_found_inf reaches an optimizer: fused Adam, AdamW, SGD and Adagrad of torch."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def set_found_inf(optimizer: Any, skip: torch.Tensor, scaler: torch.amp.GradScaler | None = None) -> None:
    """Let a fused optimizer's next step change nothing where `skip` is true, without waiting for the device.

    found_inf is the attribute by which torch's GradScaler does the same. With a scaler, whose unscale_ has been called,
    the flag joins its own, so that a non-finite loss lowers the scale as an overflow does.
    """
    if scaler is None:
        optimizer.found_inf = skip.float()
        return
    for found_inf in scaler._found_inf_per_device(optimizer).values():
        torch.maximum(found_inf, skip.to(found_inf), out=found_inf)  # the kernel compares with 1


def copy_where(condition: torch.Tensor, targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copy sources into targets of the same shapes if a () bool on the device is true; few kernels for many tensors."""
    for dtype in {target.dtype for target in targets}:
        pairs = [(target, source) for target, source in zip(targets, sources) if target.dtype == dtype]
        own, others = (torch.cat([tensor.reshape(-1) for tensor in side]) for side in zip(*pairs))
        chosen = torch.where(condition, others, own).split([target.numel() for target, _ in pairs])
        torch._foreach_copy_(
            [target for target, _ in pairs], [part.view(t.shape) for part, (t, _) in zip(chosen, pairs)]
        )
