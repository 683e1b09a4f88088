"""Arguments of train.py, built from the values of a command line.

argv -> llava/config.py: names and values -> FineTuning, RunArguments
"""

from dataclasses import dataclass

from common.training.hf_arguments import TrackedArguments, build_arguments
from llava.config import FineTuning, Logging, Training, read_command_line


@dataclass
class RunArguments(Training, Logging, TrackedArguments):
    """Trainer's arguments with the defaults of llava/config.py."""


def read_arguments(argv: list[str]) -> tuple[FineTuning, RunArguments]:
    tuning, training = build_arguments((FineTuning, RunArguments), read_command_line(argv))
    return tuning, training
