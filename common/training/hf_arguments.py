"""Command lines of scripts that train by Hugging Face's Trainer.

dataclasses, among them TrainingArguments -> flags -> one instance of each dataclass

    later wins: the dataclasses < defaults of the script < --config FILE.json < flags
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from common.cli.config_files import read_mapping
from common.cli.names import unknown_name
from common.cli.tool_parser import ToolParser


class TrainerParser(ToolParser, HfArgumentParser):
    """HfArgumentParser with a file of settings, and with the error messages of the tools."""

    def __init__(self, dataclass_types: Iterable[Any], description: str = ""):
        super().__init__(dataclass_types, prog="train.py", description=description, allow_abbrev=False)
        self.add_argument("--config", type=Path, help="JSON file of settings by name; flags win")

    def parse(self, argv: list[str], **defaults: Any) -> list[Any]:
        """-> one instance of each dataclass. `defaults` replace those of the dataclasses."""
        self.set_defaults(**defaults)
        namespace = self.parse_args(argv)
        if namespace.config:
            values = read_mapping(namespace.config)
            if unknown := [name for name in values if name not in namespace]:
                names = sorted(vars(namespace))
                raise ValueError(f"{namespace.config}: {unknown_name(unknown[0], names, 'setting')}")
            self.set_defaults(**values)
        try:
            return list(self.parse_args_into_dataclasses(argv, look_for_args_file=False)[:-1])  # without --config
        except ImportError as error:  # of an engine that is not installed
            raise ValueError(f"{' '.join(str(error).split())}; needed for --deepspeed {namespace.deepspeed}") from None
