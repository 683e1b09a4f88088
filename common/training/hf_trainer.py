"""Hugging Face's Trainer that outlives bad batches and bad disks: what ViTP's and LLaVA's trainers share.

a step whose loss or gradient is not finite is skipped, counted and logged (common/training/nonfinite.py)
checkpoint-N/ gets checksums.json, by which latest_valid_checkpoint (common/training/resume_state.py) knows a broken one
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer

from common.training.length_sampler import SetEpochCallback
from common.training.nonfinite import NonFiniteGuard, nonfinite_part
from common.training.resume_state import atomic_save, write_checksums

FILES = "files"  # key of a batch's file names, taken off before the model sees it


class FaultTolerantTrainer(Trainer):
    """max_nonfinite_steps: in a row, that end the run. file_of: an item of the data set -> what to call it in messages."""

    def __init__(self, *arguments, max_nonfinite_steps: int = 5, file_of: Callable[[Any], str], **named):
        super().__init__(*arguments, **named)
        self.data_collator = _Named(self.data_collator, file_of)
        self.max_nonfinite_steps = max_nonfinite_steps
        self.add_callback(SetEpochCallback())
        self.nonfinite_guard: NonFiniteGuard | None = None
        self.step_files: list[str] = []  # of the step that is under way, on this process
        self.step_loss: torch.Tensor | None = None  # sum over its batches

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        files = inputs.pop(FILES, [])
        if self.model.training:
            self.step_files += files
        return super()._prepare_inputs(inputs)

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        if self.nonfinite_guard is None:
            self.nonfinite_guard = self._start_counting()
        if self.step_loss is None:  # the first batch of a step
            self.nonfinite_guard.remember()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step_loss = loss if self.step_loss is None else self.step_loss + loss
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """Trainer asks for it between the last backward of a step and its optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        # With fp16 a gradient that overflows is the scaler's: it leaves the step out itself, and lowers its scale.
        what = nonfinite_part(self.step_loss, norm if self.accelerator.scaler is None else None)
        files, self.step_files, self.step_loss = self.step_files, [], None
        if not what:
            self.nonfinite_guard.in_a_row = 0
            return norm
        model.zero_grad(set_to_none=True)  # where there is no gradient, an optimizer changes nothing
        self.nonfinite_guard.leave_out(self.state.global_step + 1, what, gather_object(files))
        self.log({"skipped_steps": self.nonfinite_guard.total})
        return norm

    def _start_counting(self) -> NonFiniteGuard:
        """Where a run goes on, from the number that its log says.

        DeepSpeed's engine takes its step within the last backward, before anybody can look: one bad step is the end.
        """
        earlier = [entry["skipped_steps"] for entry in self.state.log_history if "skipped_steps" in entry]
        folder = Path(self.args.output_dir)
        return NonFiniteGuard(
            self.model,
            1 if self.is_deepspeed_enabled else self.max_nonfinite_steps,
            folder / "skipped_steps.jsonl" if self.args.should_save else None,
            "a lower --learning_rate or --bf16 in place of --fp16 usually helps",
            max(earlier, default=0),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Without what is no number: JSON has none for it."""
        logs = {name: value for name, value in logs.items() if not isinstance(value, float) or math.isfinite(value)}
        if self.nonfinite_guard and ("loss" in logs or "train_loss" in logs):
            logs["skipped_steps"] = self.nonfinite_guard.total
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial) -> None:
        if self.nonfinite_guard and self.nonfinite_guard.in_a_row:
            return  # weights that are broken would take the place of those that are not
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with atomic_save(folder, "the checkpoints before are untouched"):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # every process has written its random state
            if self.args.should_save:
                write_checksums(folder)


@dataclass(frozen=True)
class _Named:
    """A collator whose batches say which files they hold."""

    collator: Callable[[list], dict[str, Any]]
    file_of: Callable[[Any], str]

    def __call__(self, items: list) -> dict[str, Any]:
        return {**self.collator(items), FILES: [self.file_of(item) for item in items]}
