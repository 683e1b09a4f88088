"""Arguments of train.py, built from the values of a command line.

argv -> vitp/config.py: names and values -> ModelArguments, DataArguments, RunArguments
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from common.models.lora import LANGUAGE, PROJECTOR, VISION, Lora
from common.training.hf_arguments import TrackedArguments, build_arguments
from vitp.config import SHIPPED, DataArguments, Logging, ModelArguments, Training, read_command_line


@dataclass
class RunArguments(Training, Logging, TrackedArguments):
    """Trainer's arguments with the defaults of vitp/config.py."""

    def __post_init__(self):
        if self.bf16 is None:
            self.bf16 = torch.cuda.is_available() and not (self.fp16 or self.use_cpu) and torch.cuda.is_bf16_supported()
        self.deepspeed = _shipped(self.deepspeed)
        self.fsdp_config = _shipped(self.fsdp_config)
        self.label_names = ["labels"]
        super().__post_init__()
        self.do_train = True


def read_arguments(
    argv: list[str], defaults: Mapping[str, object] | None = None
) -> tuple[ModelArguments, DataArguments, RunArguments]:
    """defaults: in place of those of vitp/config.py."""
    values = read_command_line(argv, defaults)
    model, data, run = build_arguments((ModelArguments, DataArguments, RunArguments), values)
    return model, data, run


def trainable_parts(model: ModelArguments) -> dict[str, bool | Lora]:
    """Arguments of common.models.lora.set_trainable."""

    def choose(part: str, frozen: bool, rank: int) -> bool | Lora:
        if frozen and rank:
            raise ValueError(f"--freeze_{part} and --use_{part}_lora contradict each other; give one of them")
        return Lora(rank, 2 * rank) if rank else not frozen

    return {
        LANGUAGE: choose("llm", model.freeze_llm, model.use_llm_lora),
        PROJECTOR: not model.freeze_mlp,
        VISION: choose("backbone", model.freeze_backbone, model.use_backbone_lora),
    }


def _shipped(path):
    """A file of vitp/configs may be given by its name alone, or by InternVL's, zero_stage2_config.json."""
    if isinstance(path, str) and not path.startswith("{"):
        for candidate in (Path(path), SHIPPED / path, SHIPPED / path.replace("_config.json", ".json")):
            if candidate.is_file():
                return str(candidate)
        names = ", ".join(sorted(file.name for file in SHIPPED.glob("*.json")))
        raise FileNotFoundError(f"{path}: no such file, nor one of those shipped: {names}")
    return path
