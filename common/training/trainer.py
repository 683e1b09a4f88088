"""The one training loop. A model is trainable if model(**batch) returns (loss, parts).

for epoch, means in train_epochs(...):      every optimizer step of an epoch happens inside
    validate, draw, save, break             what an epoch is followed by stands in the script that asks for it

Exact resume: the state of every step is (weights, optimizer, moving average, random states, epoch, batch); the batch
sampler's list is a pure function of (seed, epoch); the learning rate is a pure function of the step. So a run killed
anywhere and resumed from last/ ends with the very weights of a run that was never stopped. A step whose loss or
gradient is not finite is left out (common/training/nonfinite.py).
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.models.checkpoint_file import read_tensors
from common.text.files import write_json
from common.training.nonfinite import NonFiniteGuard, nonfinite_part
from common.training.resume_state import atomic_save, ensure_valid_state, promote_state, write_checksums
from common.training.run import Run
from common.training.schedule import TrainSchedule, set_learning_rate


@dataclass
class Progress:
    """Where training stands; written into last/."""

    epoch: int = 0  # epochs that are over, with their validation
    batch: int = 0  # batches of the current epoch that are over
    step: int = 0  # optimizer steps, with those left out
    left_out: int = 0  # steps whose loss or gradient was not finite
    skipped_before: int = 0  # those of earlier epochs
    sums: dict[str, float] = field(default_factory=dict)  # of each part over the current epoch's good steps
    best: float = -math.inf  # highest validation score
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per epoch


class Trainer:
    """Everything a step touches, so that it can be saved and restored together."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader,
        plan: TrainSchedule,
        run: Run | None,
        last: Path | None,
        ema_decay: float = 0.0,
    ):
        """last: folder of the state to resume from; None keeps none."""
        if len(loader.batch_sampler) < plan.accumulation:
            raise ValueError(
                f"{len(loader.batch_sampler)} batch(es) per epoch with ACCUMULATION {plan.accumulation}: not one "
                "step; use more images, a smaller BATCH_SIZE or less accumulation"
            )
        self.accelerator, self.loader, self.plan, self.run, self.last = accelerator, loader, plan, run, last
        self.average = None
        if ema_decay:
            average = AveragedModel(model, multi_avg_fn=partial(_move_average, ema_decay), use_buffers=True)
            self.average = average.to(accelerator.device).requires_grad_(False)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.nonfinite_guard = NonFiniteGuard(
            self.model,
            plan.max_nonfinite_steps,
            run.log_folder / "skipped_steps.jsonl" if run else None,
            (f"{last} holds the state before; " if last else "")
            + "a lower LEARNING_RATE, CLIP_NORM 1 or PRECISION fp32 usually helps",
        )
        self.progress = Progress()
        self.sums: dict[str, torch.Tensor | float] = {}  # on the device: adding does not wait for it
        self.steps_per_epoch = len(loader.batch_sampler) // plan.accumulation

    @property
    def plain_model(self) -> torch.nn.Module:
        """The model that training works on, without the wrappers of devices."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def best_model(self) -> torch.nn.Module:
        """The model to validate and to save: the moving average where there is one."""
        return self.average.module if self.average else self.plain_model

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train; after each epoch's steps yield (its number from 0, mean of each part over its steps)."""
        while self.progress.epoch < self.plan.epochs:
            means = self._train_epoch()
            yield self.progress.epoch, means
            self.progress.epoch, self.progress.batch, self.sums = self.progress.epoch + 1, 0, {}
            self.progress.skipped_before = self.progress.left_out
            self.save()

    def _train_epoch(self) -> dict[str, float]:
        plan, progress = self.plan, self.progress
        self.model.train()
        self.loader.batch_sampler.set_position(progress.epoch, progress.batch)
        seen, clock = 0, time.perf_counter()
        bar = tqdm(
            desc=f"epoch {progress.epoch + 1}/{plan.epochs}",
            unit="step",
            leave=False,
            dynamic_ncols=True,
            total=self.steps_per_epoch,
            initial=progress.batch // plan.accumulation,
            disable=not self.accelerator.is_main_process,
        )
        batches_of_epoch = iter(self.loader)
        # An epoch's last batches are left out where they are too few for a step.
        while len(batches := list(islice(batches_of_epoch, plan.accumulation))) == plan.accumulation:
            rate = set_learning_rate(self.optimizer, progress.step, self.steps_per_epoch, plan)
            parts, norm = self._step(batches)
            for name, value in parts.items():
                self.sums[name] = self.sums.get(name, 0) + value
            progress.step += 1
            progress.batch += plan.accumulation
            seen += sum(len(next(iter(batch.values()))) for batch in batches) * self.accelerator.num_processes
            bar.update()
            if progress.step % plan.log_steps == 0:  # reading a number waits for the device, so not at every step
                values = {name: float(value) for name, value in parts.items()}
                speed, seen, clock = seen / (time.perf_counter() - clock), 0, time.perf_counter()
                loss = f"loss {values['loss']:.3f}, " if values else ""
                left_out = f", left out {progress.left_out}" if progress.left_out else ""
                bar.set_postfix_str(f"{loss}{speed:.0f} img/s{left_out}")
                if self.run:
                    values |= {"learning_rate": rate, "images_per_second": speed, "skipped_steps": progress.left_out}
                    values |= {"gradient_norm": float(norm)} if parts else {}
                    self.run.log(progress.step, {f"train/{name}": value for name, value in values.items()})
            if progress.step % plan.save_steps == 0:
                self.save()
        bar.close()
        steps = progress.batch // plan.accumulation - (progress.left_out - progress.skipped_before)
        if not steps:
            raise ValueError(f"epoch {progress.epoch + 1}: no step with a finite loss; {self.nonfinite_guard.advice}")
        return {name: float(value) / steps for name, value in self.sums.items()}

    def _step(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], Any]:
        """One optimizer step -> loss and its parts, none where it is left out; the gradient's norm before its limit."""
        self.nonfinite_guard.remember()
        sums: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(batches, 1):
            batch = {
                name: value.to(self.accelerator.device, non_blocking=True) if torch.is_tensor(value) else value
                for name, value in batch.items()
            }
            # DDP sums gradients over devices once, in the last backward of a step.
            with self.accelerator.no_sync(self.model) if number < len(batches) else nullcontext():
                loss, parts = self.model(**batch)
                self.accelerator.backward(loss / len(batches))
            for name, value in {"loss": loss, **parts}.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(batches)
        # With fp16 a gradient that overflows is the scaler's: it leaves the step out itself, and lowers its scale.
        scaled = self.accelerator.scaler is not None
        norm = None if scaled else self._clip()
        if what := nonfinite_part(sums["loss"], norm):
            self.optimizer.zero_grad()
            self.progress.left_out += 1
            self.nonfinite_guard.leave_out(self.progress.step + 1, what, self._files_of_step())
            return {}, norm
        self.nonfinite_guard.in_a_row = 0
        norm = self._clip() if scaled else norm
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update_parameters(self.plain_model)
        return sums, norm

    def _clip(self) -> torch.Tensor:
        return self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm or math.inf)

    def _files_of_step(self) -> list[str]:
        """Of all devices. Which samples a batch holds is known without them, so batches need not carry names."""
        batches = copy.copy(self.loader.batch_sampler)
        batches.rank, batches.world = 0, 1
        batches.set_position(self.progress.epoch, self.progress.batch)
        return [
            self.loader.dataset.file_of(key.index)
            for batch in islice(iter(batches), self.plan.accumulation)
            for key in batch
        ]

    def save(self) -> None:
        """Write last/ whole beside the old one, then swap the two; a kill in between leaves one that is whole.

        Not after a bad step: weights that are broken would take the place of those that are not.
        """
        if self.last is None or self.nonfinite_guard.in_a_row:
            return
        partial = self.last.with_name("last.partial")
        sums = {name: float(value) for name, value in self.sums.items()}
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        with atomic_save(partial, "the state before is untouched", shown=self.last):
            self.accelerator.save_state(str(partial))
            if self.accelerator.is_main_process:
                if self.average:
                    torch.save(self.average.state_dict(), partial / "average.pth")
                write_json(partial / "progress.json", {**asdict(self.progress), "sums": sums})
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                write_checksums(partial)
                promote_state(partial, self.last)

    def resume(self) -> None:
        """Go on from last/, or from the state before where that is not whole."""
        if self.accelerator.is_main_process:
            ensure_valid_state(self.last)
        self.accelerator.wait_for_everyone()
        self.progress = Progress(**json.loads((self.last / "progress.json").read_text()))
        self.sums = dict(self.progress.sums)
        if self.average:
            self.average.load_state_dict(read_tensors(self.last / "average.pth"))
        self.accelerator.load_state(str(self.last))

    def report_skipped_steps(self) -> None:
        """A line among a run's last words, where there is anything to say."""
        if count := self.progress.left_out:
            where = self.run.log_folder / "skipped_steps.jsonl"
            print(f"left out   {count} of {self.progress.step} steps, not finite: {where}")


def _move_average(decay: float, average: list[torch.Tensor], now: list[torch.Tensor], _) -> None:
    """torch's own interpolates by start + share * (end - start), which makes NaN of the infinities in a mask buffer."""
    if not average[0].is_floating_point():  # a count, as batch normalisation keeps one; torch gives one type at a time
        torch._foreach_copy_(average, now)
        return
    torch._foreach_mul_(average, decay)
    torch._foreach_add_(average, now, alpha=1 - decay)
