"""Closing lines of a training, the same of all five systems: what was reached, what lies where, what to type next."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.cli.errors import Stopped


def print_closing(
    reached: str,
    model: Path,
    results: Path,
    logs: Path,
    next_commands: Iterable[list[str | Path]],
    plots: str = "",
    skipped: str = "",
) -> None:
    """reached: scores and the epoch or step they are of. logs: the run's folder in log_dir. Empty lines are omitted.

    next_commands: words that follow "python".
    """
    Stopped.advice = ""  # nothing is left to resume
    lines = {
        "reached": reached,
        "skipped": skipped,
        "model": model,
        "plots": plots,
        "results": results,
        "logs": f"{logs}; {shlex.join(['tensorboard', '--logdir', str(logs.parent)])}",
        "next": f"\n{'':11}".join(shlex.join(["python", *map(str, words)]) for words in next_commands),
    }
    print("\n" + "\n".join(f"{name:10} {text}" for name, text in lines.items() if text))


def format_values(values: Mapping[str, float], columns: Mapping[str, str]) -> list[str]:
    """columns: name of a value -> format with its label, such as 'loss {:.3f}'; those without a value are omitted."""
    return [text.format(values[name]) for name, text in columns.items() if name in values]
