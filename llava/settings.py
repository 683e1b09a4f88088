"""The command line of llava/train.py: FineTuning and all of Hugging Face's TrainingArguments in one.

later wins: our defaults below < --demo < --config FILE.json < flags
"""

from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainingArguments

from common.cli.settings import unknown_name
from common.text.json_text import parse_json
from llava.config import DEMO_TRAINING, FineTuning

DEFAULTS = {  # where Trainer's own would surprise, or are not LLaVA's (Liu et al. 2023, arXiv 2310.03744, table 9)
    "output_dir": "checkpoints/llava",
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "num_train_epochs": 1.0,
    "logging_steps": 10,
    "report_to": "tensorboard",
    "eval_strategy": "epoch",
    "save_total_limit": 2,
    "prediction_loss_only": True,
    "remove_unused_columns": False,
}


def read_training_settings(argv: list[str]) -> tuple[FineTuning, TrainingArguments]:
    """ValueError names an unknown flag with the nearest real one, or a value of the wrong type."""
    parser = HfArgumentParser((FineTuning, TrainingArguments), prog="train.py")

    def refuse(why: str) -> None:
        raise ValueError(why)

    parser.error = refuse
    parser.add_argument("--config", help="JSON file of settings by name; flags win")
    known = {option for action in parser._actions for option in action.option_strings}
    flags = [word.partition("=")[0] for word in argv if word.startswith("--")]
    if wrong := [flag for flag in flags if flag not in known]:
        raise ValueError(unknown_name(wrong[0], sorted(known), "flag"))
    parser.set_defaults(**DEFAULTS, dataloader_pin_memory=torch.cuda.is_available())  # else it warns each time
    demo = "--demo" in flags
    if demo:
        parser.set_defaults(**DEMO_TRAINING)
    written = parser.parse_known_args(argv)[0].config
    if written:
        parser.set_defaults(**_read_config(Path(written), {option.lstrip("-") for option in known}))
    try:
        tuning, training, _ = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ImportError as error:  # of an engine that is not installed
        raise ValueError(f"{' '.join(str(error).split())}; needed for --deepspeed") from None
    return tuning, training


def _read_config(path: Path, known: set[str]) -> dict[str, object]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (--config)")
    try:
        values = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected names and values, found {type(values).__name__}")
    for name in values:
        if name not in known:
            raise ValueError(f"{path}: " + unknown_name(name, sorted(known), "setting"))
    return values
