"""Outputs of a command line that would destroy one of its inputs.

Parameters and settings of the names OUTPUTS are written; any other value that names an existing file or folder is read.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.cli.errors import CommandLineError
from common.cli.paths import ROOT

OUTPUTS = (
    "output",
    "output_dir",
    "export",
    "save_maps",
    "sheet",
    "meta",
    "checkpoint_dir",
    "results_dir",
    "log_dir",
    "logging_dir",
)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
RESUMED = ("resume", "resume_from_checkpoint")  # read and written again


def refuse_overwriting(values: Mapping[str, object]) -> None:
    """CommandLineError where an output is an input, under another name or as a hard link too, or two files are one.

    values: by the names of parameters or of settings, as training.checkpoint_dir.
    """
    outputs = {name: Path(str(value)) for name, value in values.items() if _key(name) in OUTPUTS and value}
    inputs = {name: value for name, value in values.items() if _key(name) not in (*OUTPUTS, *RESUMED)}
    for name, output in outputs.items():
        for other, value in inputs.items():
            for path in _paths(value):
                if _same(output, path):
                    raise CommandLineError(f"--{name} {output}: is the input that {other} names; give it another name")
                if _is_picture_of(output, path):
                    raise CommandLineError(f"--{name} {output}: is an image of the folder {path}; give it another name")
        for other, second in outputs.items():
            if name < other and not name.endswith("_dir") and os.path.realpath(output) == os.path.realpath(second):
                raise CommandLineError(f"--{name} {output}: is what --{other} names; give it another name")


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def _same(output: Path, path: str) -> bool:
    """One file or folder, by device and inode."""
    try:
        return output.samefile(path)
    except (OSError, ValueError):  # one of them does not exist, or is no path at all
        return False


def _is_picture_of(output: Path, path: str) -> bool:
    """Whether an output is an image in an input folder; the folder where one works may hold results of before."""
    try:
        folder = Path(path).resolve()
        return (
            output.suffix.lower() in PICTURES
            and folder.is_dir()
            and not Path.cwd().is_relative_to(folder)
            and output.is_file()
            and output.resolve().is_relative_to(folder)
        )
    except (OSError, ValueError):
        return False


def _paths(value: object) -> Iterator[str]:
    """Whatever may be a path in a value: itself, its items, what stands behind = or behind the last colon."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, (str, Path)) and str(value):
        text = str(value)
        for path in {text, text.partition("=")[2], text.rpartition(":")[2]} - {""}:
            yield path
            yield str(ROOT / path)  # where scripts in a folder of their own look next
