"""State of a run: model, optimizer, moving average, random states and position, which are saved and restored together.

TrainerState -> last.partial/ -> last/, last.older/ (common/training/resume_state.py)
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from common.cli.errors import one_line
from common.models.checkpoint_file import read_tensors
from common.text.files import write_json
from common.text.schema import read_checked
from common.training.moving_average import MovingAverage
from common.training.nonfinite import NonFiniteGuard
from common.training.resume_state import (
    atomic_save,
    ensure_valid_state,
    has_random_states,
    promote_state,
    write_checksums,
)
from common.training.run import Run
from common.training.schedule import Progress
from common.training.trained_on import TRAINED_ON


class TrainerState:
    """run: on the main process alone. state_dir: folder of the state to resume from; None saves none."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        max_nonfinite_steps: int,
        run: Run | None,
        state_dir: Path | None,
        ema_decay: float = 0.0,
    ):
        self.accelerator, self.state_dir = accelerator, state_dir
        self.run: Any = run  # a Run, or None
        self.ema_model = MovingAverage(model, ema_decay).to(accelerator.device) if ema_decay else None
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.nonfinite_guard = NonFiniteGuard(
            self.model,
            max_nonfinite_steps,
            run.log_folder / "skipped_steps.jsonl" if run else None,
            (f"{state_dir} holds the state before; " if state_dir else "")
            + "a lower learning rate, a gradient norm clipped to 1 or fp32 usually helps",
        )
        self.progress = Progress()

    @property
    def unwrapped_model(self) -> Any:
        """The model under training, without the wrappers of distributed training."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def eval_model(self) -> Any:
        """The model to validate and to save: with the moving average of the weights, if there is one."""
        return self.ema_model.module if self.ema_model else self.unwrapped_model

    def read_flags(self) -> list[int]:
        """Wait for the device and count the steps that were skipped since the last call -> their numbers."""
        skipped = self.nonfinite_guard.read()
        self.progress.skipped_steps += len(skipped)
        return skipped

    def save(self) -> None:
        """Write last/ completely before it replaces the old one; a kill in between leaves one that is complete.

        Not after a non-finite step: broken weights would replace good ones.
        """
        self.read_flags()
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
        self.progress = read_checked(self.state_dir / "progress.json", Progress)
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
