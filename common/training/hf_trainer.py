"""Hugging Face's Trainer with fault tolerance, length grouping and this repository's logs: shared by ViTP and LLaVA.

optimizer steps with a non-finite loss or gradient are skipped, counted and logged (common/training/nonfinite.py)
checkpoint-N/ gets trained_on.json (common/training/trained_on.py), and checksums.json, by which
latest_valid_checkpoint (common/training/resume_state.py) detects damage

Where Trainer resumes with at most a warning, this one stops (weights that are not of its model), keeps the run's own
settings (a changed rate or weight decay), or takes no further step (a finished run).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import PrinterCallback, ProgressCallback, Trainer, set_seed

from common.cli.errors import Stopped, one_line
from common.models.checkpoint_file import check_tensors, read_tensors
from common.text.files import write_json
from common.training.closing import format_values
from common.training.hf_callbacks import RunLog, SetEpochCallback, ShowProgress
from common.training.length_sampler import LengthGroupedSampler
from common.training.loader import LoaderProcess, naming
from common.training.nonfinite import NonFiniteGuard, can_skip, set_found_inf
from common.training.part_rates import set_part_rates
from common.training.resume_state import (
    atomic_save,
    find_damage,
    has_random_states,
    latest_valid_checkpoint,
    write_checksums,
)
from common.training.run import Run
from common.training.stop_signals import StopSignals, resume_advice, stopped
from common.training.trained_on import TRAINED_ON

RANDOM_STATES = "rng_state*.pth"  # one of each process in every checkpoint
RESUME = partial(resume_advice, "--resume_from_checkpoint", "true")
MEMORY_FLAGS = (  # for batch_hint
    "lower --per_device_train_batch_size and raise --gradient_accumulation_steps, or give --gradient_checkpointing true"
)
FILES = "files"  # key of a batch's file names, taken off before the model sees it


class FaultTolerantTrainer(Trainer):
    """max_nonfinite_steps: consecutive ones that end the run. file_of: an item of the dataset -> its name in messages.

    group_by_length: steps of samples of similar length, by lengths() of the training set (0 or None: not known).
    learning_rates: of parts (common/models/lora.py) with a rate of their own; 0: that of the others.
    run: the open record of the run on the main process; None elsewhere.
    """

    model: Any

    def __init__(
        self,
        *arguments: Any,
        file_of: Callable[[Any], str],
        max_nonfinite_steps: int = 5,
        group_by_length: bool = False,
        learning_rates: Mapping[str, float] = {},
        run: Run | None = None,
        **named: Any,
    ):
        super().__init__(*arguments, **named)
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        if self.is_world_process_zero():
            self.add_callback(ShowProgress)
        self.learning_rates = {part: rate for part, rate in learning_rates.items() if rate}
        self.group_by_length, self.run, self.max_nonfinite_steps = group_by_length, run, max_nonfinite_steps
        if run is not None:
            self.add_callback(RunLog(run))
        self.signals, self.filter_nan = StopSignals(), self.args.logging_nan_inf_filter
        self.data_collator = partial(_collate_with_files, self.data_collator, file_of)
        self.add_callback(SetEpochCallback())
        self.nonfinite_guard: Any = None  # a NonFiniteGuard from the first step on
        self.step_files: list[str] = []  # of the current step, on this process
        self.step_loss: Any = None  # sum over its batches

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Trainer's. Raises Stopped once a signal has come and a checkpoint is saved."""
        with self.signals:
            result = super().train(*arguments, **named)
        Stopped.advice = f"all steps are done; {RESUME()}"
        return result

    def create_optimizer(self, model: Any = None) -> Any:
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.learning_rates:
            set_part_rates(optimizer, self.model if model is None else model, self.learning_rates)
        return optimizer

    def _get_dataloader(self, *arguments: Any, **named: Any) -> Any:
        loader = super()._get_dataloader(*arguments, **named)
        base = getattr(loader, "base_dataloader", loader)  # of accelerate's wrapper
        base.worker_init_fn = LoaderProcess(base.worker_init_fn)
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = cast(Any, self.train_dataset if train_dataset is None else train_dataset)
        if hasattr(dataset, "sampler"):  # of streamed data, which have an order of their own
            return dataset.sampler()
        if not self.group_by_length:
            return super()._get_train_sampler(train_dataset)
        step_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler([length or 0 for length in dataset.lengths()], step_size, self.args.seed)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        files = inputs.pop(FILES, [])
        if self.model.training:
            self.step_files += files
        return super()._prepare_inputs(inputs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if self.nonfinite_guard is None:
            self.nonfinite_guard = self._make_guard()
        if self.step_loss is None:  # the first batch of a step
            self.nonfinite_guard.save_buffers()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.step_loss = loss if self.step_loss is None else self.step_loss + loss
        self.args.logging_nan_inf_filter = False  # Trainer's filter waits for the device; this is the same formula
        mean = self._tr_loss / (1 + self.state.global_step - self._globalstep_last_logged)
        return torch.where(loss.isfinite(), loss, mean) if self.filter_nan else loss

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        self.args.logging_nan_inf_filter = self.filter_nan
        return super().evaluate(*arguments, **named)

    def evaluate_end(self) -> dict[str, float]:
        """Metrics of the final weights: those of the last evaluation, if no step came after it."""
        last = next((entry for entry in reversed(self.state.log_history) if "eval_loss" in entry), {})
        is_final = last.get("step") == self.state.global_step and not self.args.load_best_model_at_end
        return {name: value for name, value in last.items() if name != "step"} if is_final else self.evaluate()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Trainer asks for it between the last backward of a step and its optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        scaler, files, number = self.accelerator.scaler, self.step_files, self.signals.number
        # With fp16 the gradient scaler handles overflowing gradients: it skips the step itself and lowers its scale.
        skip = self.nonfinite_guard.check(
            self.state.global_step + 1, self.step_loss, None if scaler else norm, lambda: gather_object(files), number
        )
        self.step_files, self.step_loss = [], None
        is_sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if not is_sharded and can_skip(optimizer := cast(Any, self.optimizer).optimizer):
            set_found_inf(optimizer, skip, scaler)
        elif self._read_flags():  # waits for the device
            model.zero_grad(set_to_none=True)  # without gradients an optimizer changes nothing
        return norm

    def _read_flags(self) -> bool:
        """Wait for the device and log what was skipped -> whether anything was."""
        if skipped := self.nonfinite_guard.read():
            should_log = self.control.should_log
            self.log({"skipped_steps": self.nonfinite_guard.total})
            self.control.should_log = should_log  # which Trainer takes back with each entry
        return bool(skipped)

    def _maybe_log_save_evaluate(self, *arguments: Any, **named: Any) -> None:
        """Trainer's, after each step. The last step is logged, so that a short run has a curve too."""
        control, guard, state = self.control, self.nonfinite_guard, self.state
        control.should_log |= state.global_step == state.max_steps
        is_alone = self.args.world_size == 1
        if control.should_log or control.should_save or control.should_evaluate or (is_alone and self.signals.number):
            self._read_flags()
        number = self.signals.number if is_alone else guard.stop_signal
        stops = bool(number) and not guard.consecutive  # broken weights are not saved: after the next finite step
        control.should_save |= stops
        super()._maybe_log_save_evaluate(*arguments, **named)
        if stops:
            if self.run is not None:
                self.run.close()
            raise stopped(number, state.global_step, self._checkpoint_folder(), RESUME())

    def _checkpoint_folder(self) -> Path:
        return Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"

    def _make_guard(self) -> NonFiniteGuard:
        """A guard that counts on from the log of a resumed run.

        DeepSpeed's engine takes its step within the last backward, before it can be checked: one non-finite step ends
        the run.
        """
        earlier = [entry["skipped_steps"] for entry in self.state.log_history if "skipped_steps" in entry]
        folder = self.run.log_folder if self.run else Path(str(self.args.output_dir))
        return NonFiniteGuard(
            self.model,
            1 if self.is_deepspeed_enabled else self.max_nonfinite_steps,
            folder / "skipped_steps.jsonl" if self.args.should_save else None,
            "a lower --learning_rate or --bf16 in place of --fp16 usually helps",
            int(max(earlier, default=0)),
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Without infinities and NaN, which JSON does not have."""
        logs = {name: value for name, value in logs.items() if not isinstance(value, float) or math.isfinite(value)}
        if self.nonfinite_guard and ("loss" in logs or "train_loss" in logs):
            logs["skipped_steps"] = self.nonfinite_guard.total
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.nonfinite_guard and self.nonfinite_guard.consecutive:
            return  # broken weights must not replace good ones
        folder = self._checkpoint_folder()
        with atomic_save(folder, "the checkpoints before are untouched"):
            super()._save_checkpoint(model, trial)
            if self.run is not None:
                write_json(folder / TRAINED_ON, self.run.trained_on)
            self.accelerator.wait_for_everyone()  # every process has written its random state
            if self.args.should_save:
                write_checksums(folder)

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """Trainer looks at max_steps after a step: resuming a run that is at its end would add one each time."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **named)
        else:
            self.control.should_training_stop = True

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        adapter = Path(resume_from_checkpoint) / SAFETENSORS_WEIGHTS_NAME
        if isinstance(self.model, PeftModel) and adapter.is_file():  # peft only warns
            check_tensors(read_tensors(adapter), get_peft_model_state_dict(self.model), adapter, "this run's adapter")
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:
            raise ValueError(f"{resume_from_checkpoint}: is not of this model ({one_line(error)})") from None

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """An error where Trainer only warns: the run would continue with some weights from its start."""
        tied = getattr(self.model, "all_tied_weights_keys", {})
        if wrong := [*(set(load_result.missing_keys) - set(tied)), *load_result.unexpected_keys]:
            raise ValueError(f"the checkpoint is not of this model: {len(wrong)} tensors differ, such as {wrong[0]}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """With the rates, decay and betas of this run, which Trainer would replace by those of the checkpoint."""
        factors = getattr(self.lr_scheduler, "lr_lambdas", None)
        if checkpoint is None or self.is_deepspeed_enabled or factors is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer, scheduler = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        base_rates = scheduler.base_lrs
        options = [{name: group[name] for name in group.keys() - {"params"}} for group in optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler.base_lrs = base_rates
        scheduler._last_lr = [rate * factor(scheduler.last_epoch) for rate, factor in zip(base_rates, factors)]
        for group, own, rate in zip(optimizer.param_groups, options, scheduler._last_lr):
            group.update(own, lr=rate)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.has_random_states(checkpoint):
            super()._load_rng_state(checkpoint)
        else:
            set_seed(self.args.seed + self.state.global_step)

    def reached(self) -> str:
        """The last values of the log, for the closing lines."""
        history = {name: value for entry in self.state.log_history for name, value in entry.items()}
        values = format_values(history, {"loss": "loss {:.3f}", "eval_loss": "eval loss {:.3f}"})
        return f"step {self.state.global_step} of {self.state.max_steps}: {'  '.join(values)}"

    def has_random_states(self, checkpoint: str) -> bool:
        """Whether a checkpoint was saved by as many processes as there are now."""
        return has_random_states(Path(checkpoint), RANDOM_STATES, self.args.world_size)


def find_resume_checkpoint(output_dir: str | Path, requested: str | bool | None) -> Path | None:
    """requested: --resume_from_checkpoint: true for the newest valid checkpoint of output_dir, false, or a folder."""
    choice = str(requested or "false").lower()
    if choice in ("false", "no", "0"):
        return None
    if choice in ("true", "yes", "1"):
        checkpoint = latest_valid_checkpoint(output_dir)
        if checkpoint is None:
            raise FileNotFoundError(
                f"{output_dir}: no valid checkpoint-N to resume from; start without --resume_from_checkpoint"
            )
    else:
        checkpoint = Path(str(requested))
        if damage := find_damage(checkpoint):
            raise ValueError(f"{requested}: not a valid checkpoint, {damage} (--resume_from_checkpoint)")
    if not any(checkpoint.glob(RANDOM_STATES)):  # Trainer would start optimizer and warm-up anew, without a word
        raise ValueError(f"{checkpoint}: holds weights alone, by --save_only_model; training cannot resume from it")
    return checkpoint


def _collate_with_files(
    collator: Callable[[list], dict[str, Any]], file_of: Callable[[Any], str], items: list
) -> dict[str, Any]:
    files = [file_of(item) for item in items]
    with naming(lambda: ", ".join(files)):
        return {**collator(items), FILES: files}
