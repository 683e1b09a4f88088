"""Arguments of Hugging Face's Trainer, from the values of a command line (common/cli/trainer_flags.py)."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK

from common.cli.errors import CommandLineError, one_line
from common.training.trackers import INSTALLED, installed_trackers

TENSORBOARD = "tensorboard"


@dataclasses.dataclass
class TrackedArguments(TrainingArguments):
    """trackers: of --report_to, which the record of the run feeds; Trainer has those that only it knows.

    A value that Trainer does not allow, or a tracker that is not installed, is a ValueError.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            choices, value = field.metadata.get("choices"), getattr(self, field.name)
            if choices and value is not None and value not in choices:
                raise CommandLineError(f"--{field.name}: {value}, expected {'|'.join(map(str, choices))}")
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self.disable_tqdm = bool(self.disable_tqdm)  # not by the level of transformers' messages, as Trainer has it
        self.enable_jit_checkpoint = False  # every run is saved at a signal, and Trainer's handler would replace ours
        super().__post_init__()
        others = [name for name in self.report_to or () if name in INTEGRATION_TO_CALLBACK]
        others = [name for name in others if name not in (TENSORBOARD, *INSTALLED)]
        self.trackers = installed_trackers([name for name in self.report_to or () if name not in others])
        self.report_to = others
        if self.trackio_space_id:
            os.environ["TRACKIO_SPACE_ID"] = self.trackio_space_id
        if self.project != TrainingArguments.project:
            os.environ.update({f"{name.upper()}_PROJECT": self.project for name in self.trackers})

    def fixed_on_resume(self) -> dict[str, Any]:
        """What a resumed run must repeat. The number of processes may change as long as a step has as many samples."""
        samples = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        fixed: dict[str, Any] = {
            "per_device_train_batch_size * gradient_accumulation_steps * processes": samples,
            "seed": self.seed,
            "optim": str(self.optim),
            "train_sampling_strategy": str(self.train_sampling_strategy),
            "engine": "deepspeed" if self.deepspeed else "fsdp" if self.fsdp else "none",
        }
        if self.deepspeed:  # whose engine restores these with its own state
            fixed |= {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return fixed

    def record(self) -> dict[str, Any]:
        """What settings.json says of them."""
        return {**json.loads(self.to_json_string()), "report_to": [*cast(list[str], self.report_to), *self.trackers]}


def build_arguments(kinds: Iterable[type], values: Mapping[str, Any]) -> list[Any]:
    """One instance of each dataclass. values: of read_flags."""
    return [_build(kind, values) for kind in kinds]


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    try:
        return kind(**{name: value for name, value in values.items() if name in names})
    except ImportError as error:  # of an engine that is not installed
        engine = values.get("deepspeed")
        raise ValueError(f"{one_line(error)}; needed for --deepspeed {engine}") from None
