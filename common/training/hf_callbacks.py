"""Callbacks of Hugging Face's Trainer: the epoch for samplers, the run's logs, and its progress on the terminal."""

import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState
from transformers.integrations.integration_utils import rewrite_logs
from transformers.trainer_utils import has_length

from common.cli.progress_bar import format_seconds, progress_bar, training_bar
from common.training.length_sampler import EpochSampler
from common.training.run import Run


class SetEpochCallback(TrainerCallback):
    """Passes the epoch on to sampler and dataset; accelerate does not reach those below a batch sampler."""

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: Any, train_dataloader: Any = None, **_: Any
    ) -> None:
        epoch, sampler = int(state.epoch or 0), train_dataloader.batch_sampler
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(epoch)
        while sampler is not None:
            if isinstance(sampler, EpochSampler):
                sampler.epoch = epoch
            sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)


class RunLog(TrainerCallback):
    """Trainer's entries into the run's log.jsonl and TensorBoard."""

    def __init__(self, run: Run):
        self.run = run

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.run.start_logging(state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if numbers:
            self.run.log(state.global_step, rewrite_logs(numbers))  # loss -> train/loss, eval_loss -> eval/loss

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.run.writer.flush()

    on_evaluate = on_train_end


class ShowProgress(TrainerCallback):
    """The bar of common/cli/progress_bar.py, a line for each epoch and evaluation, in place of Trainer's dicts.

    Added on the main process alone.
    """

    bar: tqdm
    evaluation: tqdm | None = None
    loss = ""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar = training_bar(state.max_steps, state.global_step, args.disable_tqdm)
        self.epoch_started = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar.set_description_str(f"epoch {int(state.epoch or 0) + 1}/{state.num_train_epochs:g}", refresh=False)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_prediction_step(
        self, args: Any, state: TrainerState, control: Any, eval_dataloader: Any = None, **_: Any
    ) -> None:
        if self.evaluation is None and has_length(eval_dataloader):
            self.evaluation = progress_bar(desc="evaluation", total=len(eval_dataloader), quiet=args.disable_tqdm)
        if self.evaluation is not None:
            self.evaluation.update()

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.loss = f"loss {logs['loss']:.3f}"
            skipped = f", {logs['skipped_steps']} skipped" if logs.get("skipped_steps") else ""
            self.bar.set_postfix_str(self.loss + skipped, refresh=False)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, metrics: Any = None, **_: Any) -> None:
        if self.evaluation is not None:
            self.evaluation.close()
            self.evaluation = None
        if "eval_loss" in (metrics or {}):
            tqdm.write(f"step {state.global_step}/{state.max_steps}  eval loss {metrics['eval_loss']:.3f}")

    def on_epoch_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        seconds, self.epoch_started = time.perf_counter() - self.epoch_started, time.perf_counter()
        number = f"epoch {round(state.epoch or 0, 2):g}/{state.num_train_epochs:g}"
        tqdm.write("  ".join(filter(None, (number, f"step {state.global_step}", self.loss, format_seconds(seconds)))))

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.bar.close()
