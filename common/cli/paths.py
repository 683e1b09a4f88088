"""Paths that a user types, in the folder of a script or at the repository's root; commands as they can be typed."""

import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the repository


def find_from_root(path: str) -> str:
    """A path that exists at the repository's root but not here, from there; any other as it is."""
    return str(ROOT / path) if path and not Path(path).exists() and (ROOT / path).exists() else path


def shell_command(program: str, *words: str | Path) -> str:
    """A command as it can be typed here. program: python, or a program installed with the one that runs, by its path
    where that is below the working directory, as .venv/bin/python."""
    installed, here = Path(sys.executable).with_name(program), Path.cwd()
    if installed.is_relative_to(here) and installed.is_file():
        program = str(installed.relative_to(here))
    return shlex.join([program, *map(str, words)])


def find_inputs(settings: object, *names: str) -> None:
    """find_from_root for the attributes `names` of the settings."""
    for name in names:
        setattr(settings, name, find_from_root(getattr(settings, name)))
