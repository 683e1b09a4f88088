"""Closing lines of a training, the same for all five systems: best scores, files, next commands."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from common.cli.errors import Stopped
from common.cli.paths import find_from_root, shell_command


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

    next_commands: a script of the repository, and its flags.
    """
    Stopped.advice = ""  # nothing is left to resume
    lines = {
        "reached": reached,
        "skipped": skipped,
        "model": model,
        "plots": plots,
        "results": results,
        "logs": f"{logs}; {shell_command('tensorboard', '--logdir', logs.parent)}",
        "next": f"\n{'':11}".join(
            shell_command("python", find_from_root(str(script)), *words) for script, *words in next_commands
        ),
    }
    print("\n" + "\n".join(f"{name:10} {text}" for name, text in lines.items() if text))


def format_values(values: Mapping[str, float], columns: Mapping[str, str]) -> list[str]:
    """columns: name of a value -> format with its label, such as 'loss {:.3f}'; those without a value are omitted."""
    return [text.format(values[name]) for name, text in columns.items() if name in values]
