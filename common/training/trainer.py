"""Training loop of the style encoder, CLIP and BLIP2-gated. A model is trainable if model(**batch) -> (loss, parts).

for epoch, means in trainer.epochs():       all optimizer steps of an epoch
    validate, record_epoch, save, plot      by the script

Exact resume: the state of every step is (weights, optimizer, moving average, random states, epoch, batch); the batch
sampler's list is a pure function of (seed, epoch); the learning rate is a pure function of the step. A run killed
anywhere and resumed from last/ therefore ends with the weights of a run that was never stopped, bit for bit.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.cli.errors import Stopped
from common.cli.progress_bar import format_seconds, training_bar
from common.text.files import write_json
from common.training.closing import format_values, print_closing
from common.training.nonfinite import can_skip, set_found_inf
from common.training.run import Run
from common.training.schedule import TrainSchedule, set_learning_rate
from common.training.stop_signals import StopSignals, resume_advice, stopped
from common.training.trainer_state import TrainerState


class Trainer(TrainerState):
    """The state of a run with its data and schedule."""

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
        resume_flag: str = "--resume",
    ):
        """run: on the main process alone. state_dir: folder of the state to resume from; None saves none.

        optimizer: a fused one of torch, which skips a non-finite step without waiting for the device.
        """
        assert can_skip(optimizer)
        self.batch_sampler = cast(Any, loader.batch_sampler)  # one of samplers.py, or of its kind
        if len(self.batch_sampler) < schedule.accumulation:
            raise ValueError(
                f"{len(self.batch_sampler)} batch(es) per epoch, accumulated over {schedule.accumulation}: "
                "not one step; use more images, smaller batches or less accumulation"
            )
        self.loader, self.schedule, self.signals, self.resume_flag = loader, schedule, StopSignals(), resume_flag
        super().__init__(accelerator, model, optimizer, schedule.max_nonfinite_steps, run, state_dir, ema_decay)
        self.steps_per_epoch = len(self.batch_sampler) // schedule.accumulation

    def start(self, resume: bool, seed: int) -> None:
        """Resume from last/, or seed this device; then open the logs."""
        if resume:
            self.resume(seed)
        else:
            set_seed(seed, device_specific=True)  # dropout differs between devices
        if self.run:
            self.run.start_logging(self.progress.step)

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train; after each epoch's steps yield (its number from 0, mean of each part over its steps).

        Raises Stopped once a signal has come and the state is saved.
        """
        progress, schedule = self.progress, self.schedule
        total = schedule.epochs * self.steps_per_epoch
        quiet = not self.accelerator.is_main_process
        with self.signals, training_bar(total, progress.step, quiet) as bar:
            while progress.epoch < schedule.epochs and not progress.is_out_of_patience(schedule.patience):
                bar.set_description_str(f"epoch {progress.epoch + 1}/{schedule.epochs}", refresh=False)
                started = time.perf_counter()
                means = self._train_epoch(bar)
                self.epoch_seconds = time.perf_counter() - started
                yield progress.epoch, means
                progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
                progress.skipped_in_earlier_epochs = progress.skipped_steps
                self.save()
                self._stop_if_asked()
        Stopped.advice = f"all steps are done; {resume_advice(self.resume_flag)}"

    def _train_epoch(self, bar: tqdm) -> dict[str, float]:
        schedule, progress = self.schedule, self.progress
        self.model.train()
        self.batch_sampler.set_position(progress.epoch, progress.batch)
        samples, clock = 0, time.perf_counter()
        remaining = iter(self.loader)
        # The last batches of an epoch are dropped where they are too few for a step.
        while len(batches := list(islice(remaining, schedule.accumulation))) == schedule.accumulation:
            rate = set_learning_rate(self.optimizer, progress.step, self.steps_per_epoch, schedule)
            parts, norm = self._step(batches)
            progress.step += 1
            progress.batch += schedule.accumulation
            samples += sum(len(next(iter(batch.values()))) for batch in batches) * self.accelerator.num_processes
            is_last = progress.batch // schedule.accumulation == self.steps_per_epoch
            if progress.step % schedule.log_steps == 0 or is_last:  # reading a number waits for the device
                speed, is_skipped = samples / (time.perf_counter() - clock), progress.step in self.read_flags()
                samples, clock = 0, time.perf_counter()
                self._log_step(bar, {} if is_skipped else parts, norm, rate, speed)
            bar.update()
            if progress.step % schedule.save_steps == 0:
                self.save()
            self._stop_if_asked()
        self.read_flags()
        steps = progress.batch // schedule.accumulation - progress.skipped_steps + progress.skipped_in_earlier_epochs
        if not steps:
            raise ValueError(f"epoch {progress.epoch + 1}: no step with a finite loss; {self.nonfinite_guard.advice}")
        return {name: float(value) / steps for name, value in progress.sums.items()}

    def _log_step(self, bar: tqdm, parts: dict[str, torch.Tensor], norm: Any, rate: float, speed: float) -> None:
        """parts: empty for a skipped step. speed: images per second."""
        values, skipped = {name: float(value) for name, value in parts.items()}, self.progress.skipped_steps
        words = f"loss {values['loss']:.3f}, " if values else ""
        bar.set_postfix_str(words + f"{speed:.0f} img/s" + (f", {skipped} skipped" if skipped else ""), refresh=False)
        if self.run:
            values |= {"gradient_norm": float(norm)} if parts else {}
            values |= {"learning_rate": rate, "images_per_second": speed, "skipped_steps": skipped}
            self.run.log(self.progress.step, {f"train/{name}": value for name, value in values.items()})

    def _step(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimizer step, which changes nothing if it is not finite -> loss and parts; gradient norm before
        clipping."""
        progress, guard, scaler = self.progress, self.nonfinite_guard, self.accelerator.scaler
        guard.save_buffers()
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
        norm = self._clip()
        files = partial(self._files_of_step, progress.epoch, progress.batch)
        # With fp16 the gradient scaler handles overflowing gradients: it skips the step itself and lowers its scale.
        skip = guard.check(progress.step + 1, sums["loss"], None if scaler else norm, files, self.signals.number)
        set_found_inf(self.optimizer.optimizer, skip, scaler)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema_model:
            self.ema_model.update(self.unwrapped_model, skip)
        for name, value in sums.items():
            progress.sums[name] = progress.sums.get(name, 0) + torch.where(skip, 0, value)
        return sums, norm

    def _stop_if_asked(self) -> None:
        """Save and raise Stopped after a signal; several processes at the step whose flags all of them have read."""
        number = self.nonfinite_guard.stop_signal if self.accelerator.num_processes > 1 else self.signals.number
        if not number:
            return
        self.read_flags()
        if self.state_dir and self.nonfinite_guard.consecutive:
            return  # broken weights are not saved: after the next finite step
        self.save()
        if self.run:
            self.run.close()
        error = stopped(number, self.progress.step, self.state_dir, resume_advice(self.resume_flag))
        self.accelerator.end_training()  # after which all processes are of rank 0
        raise error

    def _clip(self) -> torch.Tensor:
        return self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip_norm or math.inf)

    def _files_of_step(self, epoch: int, batch: int) -> list[str]:
        """The files of all devices: the sampler knows them, so batches need not carry names."""
        sampler, dataset = copy.copy(self.batch_sampler), cast(Any, self.loader.dataset)
        sampler.rank, sampler.world = 0, 1
        sampler.set_position(epoch, batch)
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
        cells = [*format_values(values, columns), *(["best so far"] if self.progress.is_best else [])]
        cells.append(format_seconds(self.epoch_seconds))
        tqdm.write(f"epoch {self.progress.epoch + 1}/{self.schedule.epochs}  {'  '.join(cells)}")
        if self.progress.is_out_of_patience(self.schedule.patience):
            tqdm.write(f"stopped: no better validation for {self.schedule.patience} epochs")

    def finish(
        self,
        results: dict[str, Any],
        results_file: Path,
        model_file: Path,
        plots: str,
        columns: dict[str, str],
        next_command: list[str | Path],
    ) -> None:
        """Write the results, close the logs, and print the closing lines. columns: as of print_epoch.

        next_command: a script of the repository, and its flags.
        """
        progress = self.progress
        write_json(results_file, {"settings": self.run.settings, **results})
        self.run.close()
        skipped = f"{progress.skipped_steps} of {progress.step} steps, not finite: {self.nonfinite_guard.log}"
        best = "  ".join(format_values(progress.history[progress.best_epoch], columns))
        print_closing(
            reached=f"epoch {progress.best_epoch + 1} of {progress.epoch}: {best}",
            skipped=skipped if progress.skipped_steps else "",
            model=model_file,
            plots=plots,
            results=results_file,
            logs=self.run.log_folder,
            next_commands=[next_command] if next_command else [],
        )
