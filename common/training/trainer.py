"""Training loop of the style encoder, CLIP and BLIP2-gated. A model is trainable if model(**batch) -> (loss, parts).

for epoch, means in trainer.epochs():       all optimizer steps of an epoch
    validate, record_epoch, save, plot      by the script

Exact resume: the state of every step is (weights, optimizer, moving average, random states, epoch, batch); the batch
sampler's list is a pure function of (seed, epoch); the learning rate is a pure function of the step. A run killed
anywhere and resumed from last/ therefore ends with the weights of a run that was never stopped, bit for bit.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

from common.cli.errors import one_line
from common.cli.progress_bar import progress_bar
from common.models.checkpoint_file import read_tensors
from common.text.files import write_json
from common.training.moving_average import average_model
from common.training.nonfinite import NonFiniteGuard
from common.training.resume_state import (
    atomic_save,
    ensure_valid_state,
    has_random_states,
    promote_state,
    write_checksums,
)
from common.training.run import Run
from common.training.schedule import Progress, TrainSchedule, set_learning_rate
from common.training.trained_on import TRAINED_ON


class Trainer:
    """Model, optimizer, data and position of a run, which are saved and restored together."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: DataLoader,
        schedule: TrainSchedule,
        run: Run | None,
        state_dir: Path | None,
        ema_decay: float = 0.0,
    ):
        """run: on the main process alone. state_dir: folder of the state to resume from; None saves none."""
        self.batch_sampler = cast(Any, loader.batch_sampler)  # one of samplers.py, or of its kind
        if len(self.batch_sampler) < schedule.accumulation:
            raise ValueError(
                f"{len(self.batch_sampler)} batch(es) per epoch, accumulated over {schedule.accumulation}: "
                "not one step; use more images, smaller batches or less accumulation"
            )
        self.accelerator, self.loader, self.schedule = accelerator, loader, schedule
        self.run: Any = run  # a Run, or None
        self.state_dir = state_dir
        self.ema_model = average_model(model, ema_decay).to(accelerator.device) if ema_decay else None
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.nonfinite_guard = NonFiniteGuard(
            self.model,
            schedule.max_nonfinite_steps,
            run.log_folder / "skipped_steps.jsonl" if run else None,
            (f"{state_dir} holds the state before; " if state_dir else "")
            + "a lower learning rate, a gradient norm clipped to 1 or fp32 usually helps",
        )
        self.progress = Progress()
        self.steps_per_epoch = len(self.batch_sampler) // schedule.accumulation

    @property
    def unwrapped_model(self) -> Any:
        """The model under training, without the wrappers of distributed training."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def eval_model(self) -> Any:
        """The model to validate and to save: with the moving average of the weights, if there is one."""
        return self.ema_model.module if self.ema_model else self.unwrapped_model

    def start(self, resume: bool, seed: int) -> None:
        """Resume from last/, or seed this device; then open the logs."""
        if resume:
            self.resume(seed)
        else:
            set_seed(seed, device_specific=True)  # dropout differs between devices
        if self.run:
            self.run.start_logging(self.progress.step)

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train; after each epoch's steps yield (its number from 0, mean of each part over its steps)."""
        progress, schedule = self.progress, self.schedule
        while progress.epoch < schedule.epochs and not progress.is_out_of_patience(schedule.patience):
            yield progress.epoch, self._train_epoch()
            progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
            progress.skipped_in_earlier_epochs = progress.skipped_steps
            self.save()

    def _train_epoch(self) -> dict[str, float]:
        schedule, progress = self.schedule, self.progress
        self.model.train()
        self.batch_sampler.set_position(progress.epoch, progress.batch)
        samples, clock = 0, time.perf_counter()
        bar = progress_bar(
            desc=f"epoch {progress.epoch + 1}/{schedule.epochs}",
            unit="step",
            total=self.steps_per_epoch,
            initial=progress.batch // schedule.accumulation,
            quiet=not self.accelerator.is_main_process,
        )
        remaining = iter(self.loader)
        # The last batches of an epoch are dropped where they are too few for a step.
        while len(batches := list(islice(remaining, schedule.accumulation))) == schedule.accumulation:
            rate = set_learning_rate(self.optimizer, progress.step, self.steps_per_epoch, schedule)
            parts, norm = self._step(batches)
            for name, value in parts.items():
                progress.sums[name] = progress.sums.get(name, 0) + value
            progress.step += 1
            progress.batch += schedule.accumulation
            samples += sum(len(next(iter(batch.values()))) for batch in batches) * self.accelerator.num_processes
            if progress.step % schedule.log_steps == 0:  # reading a number waits for the device, so not at every step
                speed, skipped = samples / (time.perf_counter() - clock), progress.skipped_steps
                samples, clock = 0, time.perf_counter()
                values = {name: float(value) for name, value in parts.items()}  # none for a skipped step
                words = f"loss {values['loss']:.3f}, " if values else ""
                words += f"{speed:.0f} img/s" + (f", {skipped} skipped" if skipped else "")
                bar.set_postfix_str(words, refresh=False)
                if self.run:
                    values |= {"learning_rate": rate, "images_per_second": speed, "skipped_steps": skipped}
                    values |= {"gradient_norm": float(norm)} if parts else {}
                    self.run.log(progress.step, {f"train/{name}": value for name, value in values.items()})
            bar.update()
            if progress.step % schedule.save_steps == 0:
                self.save()
        bar.close()
        steps = progress.batch // schedule.accumulation - progress.skipped_steps + progress.skipped_in_earlier_epochs
        if not steps:
            raise ValueError(f"epoch {progress.epoch + 1}: no step with a finite loss; {self.nonfinite_guard.advice}")
        return {name: float(value) / steps for name, value in progress.sums.items()}

    def _step(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], Any]:
        """One optimizer step -> loss and its parts, none if it is skipped; gradient norm before clipping."""
        self.nonfinite_guard.save_buffers()
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
        # With fp16 the gradient scaler handles overflowing gradients: it skips the step itself and lowers its scale.
        scaled = self.accelerator.scaler is not None
        norm = None if scaled else self._clip()
        if cause := self.nonfinite_guard.check(sums["loss"], norm):
            self.optimizer.zero_grad()
            self.progress.skipped_steps += 1
            self.nonfinite_guard.skip_step(self.progress.step + 1, cause, self._files_of_step())
            return {}, norm
        norm = self._clip() if scaled else norm
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema_model:
            self.ema_model.update_parameters(self.unwrapped_model)
        return sums, norm

    def _clip(self) -> torch.Tensor:
        return self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip_norm or math.inf)

    def _files_of_step(self) -> list[str]:
        """The files of all devices: the sampler knows them, so batches need not carry names."""
        sampler, dataset = copy.copy(self.batch_sampler), cast(Any, self.loader.dataset)
        sampler.rank, sampler.world = 0, 1
        sampler.set_position(self.progress.epoch, self.progress.batch)
        return [dataset.file_of(key.index) for batch in islice(sampler, self.schedule.accumulation) for key in batch]

    def record_epoch(
        self, means: dict[str, float], scores: dict[str, float], metric: str, maximize: bool = True
    ) -> dict[str, float]:
        """Log an epoch and keep track of the best one -> all its values, as train/... and val/...

        means: of epochs(). scores: of the validation, on the main process; it shares them with the others, so that all
        of them stop or none. metric: the score that chooses the best epoch; without it the training loss does.
        """
        progress = self.progress
        values = {f"train/{name}": value for name, value in means.items()}
        values["train/learning_rate"] = max(group["lr"] for group in self.optimizer.param_groups)
        scores = broadcast_object_list([{f"val/{name}": value for name, value in scores.items()}])[0]
        values |= scores
        key = f"val/{metric}"
        score = values[key] if maximize and key in values else -values.get(key, values["train/loss"])
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
        progress.history.append({"epoch": progress.epoch + 1, "step": progress.step, **values})
        if self.run:
            self.run.log(progress.step, scores)
        return values

    @property
    def is_last_epoch(self) -> bool:
        """Whether training ends with the epoch that has just been recorded."""
        progress, schedule = self.progress, self.schedule
        return progress.epoch + 1 == schedule.epochs or progress.is_out_of_patience(schedule.patience)

    def checkpoint_metadata(self, values: dict[str, float]) -> dict[str, Any]:
        """What a model file says of its training. values: of record_epoch."""
        return {
            "settings": self.run.settings,
            "epoch": self.progress.epoch + 1,
            "step": self.progress.step,
            "metrics": values,
        }

    def print_epoch(self, values: dict[str, float], columns: dict[str, str]) -> None:
        """One line. columns: name of a value -> format with its label, such as 'loss {:.3f}'."""
        cells = [text.format(values[name]) for name, text in columns.items() if name in values]
        cells += ["best so far"] if self.progress.is_best else []
        print(f"epoch {self.progress.epoch + 1}/{self.schedule.epochs}  {'  '.join(cells)}")
        if self.progress.is_out_of_patience(self.schedule.patience):
            print(f"stopped: no better validation for {self.schedule.patience} epochs")

    def finish(self, results: dict[str, Any], results_file: Path, model_file: Path, plots: str) -> None:
        """Write the results, close the logs, and print where everything is."""
        write_json(results_file, {"settings": self.run.settings, **results})
        self.run.close()
        if count := self.progress.skipped_steps:
            print(f"skipped    {count} of {self.progress.step} steps, not finite: {self.nonfinite_guard.log}")
        print(
            f"model      {model_file} (epoch {self.progress.best_epoch + 1})\n"
            f"plots      {plots}\n"
            f"results    {results_file}\n"
            f"logs       tensorboard --logdir={self.run.log_folder.parent}"
        )

    def save(self) -> None:
        """Write last/ completely before it replaces the old one; a kill in between leaves one that is complete.

        Not after a non-finite step: broken weights would replace good ones.
        """
        if self.state_dir is None or self.nonfinite_guard.consecutive:
            return
        unfinished = self.state_dir.with_name("last.partial")
        if self.accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        with atomic_save(unfinished, "the state before is untouched", shown=self.state_dir):
            self.accelerator.save_state(str(unfinished))
            if self.accelerator.is_main_process:
                if self.ema_model:
                    torch.save(self.ema_model.state_dict(), unfinished / "average.pth")
                sums = {name: float(value) for name, value in self.progress.sums.items()}
                write_json(unfinished / "progress.json", {**asdict(self.progress), "sums": sums})
                if self.run:
                    write_json(unfinished / TRAINED_ON, self.run.trained_on)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                write_checksums(unfinished)
                promote_state(unfinished, self.state_dir)

    def resume(self, seed: int) -> None:
        """Restore last/, or the state before it where last/ is damaged. ValueError: it is of another model."""
        assert self.state_dir is not None
        if self.accelerator.is_main_process:
            ensure_valid_state(self.state_dir)
        self.accelerator.wait_for_everyone()
        self.progress = Progress(**json.loads((self.state_dir / "progress.json").read_text()))
        groups = self.optimizer.param_groups
        options = [{name: group[name] for name in group.keys() - {"params", "lr"}} for group in groups]
        try:
            if self.ema_model:
                self.ema_model.load_state_dict(read_tensors(self.state_dir / "average.pth"))
            self.accelerator.load_state(str(self.state_dir))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.state_dir}: is of another model or optimizer ({one_line(error)})") from None
        for group, own in zip(self.optimizer.param_groups, options):
            group.update(own)  # weight decay and scale of this run, not those that the state was saved with
        if not has_random_states(self.state_dir, "random_states_*.pkl", self.accelerator.num_processes):
            set_seed(seed + self.progress.step, device_specific=True)
