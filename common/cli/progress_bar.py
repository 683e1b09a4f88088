"""Progress bars: redrawn on a terminal, a line now and then in a file or pipe.

for batch in progress_bar(loader, "encoding"): ...
with progress_bar(desc="decoding", total=720, unit="img") as bar: bar.update()
with training_bar(total=4000, initial=0) as bar: bar.update()          one for all epochs, with the time left for all
"""

import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines where output is no terminal; what is faster prints none
LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {rate_fmt}, {elapsed} elapsed, {remaining} left{postfix}"


def progress_bar(
    iterable: Iterable | None = None,
    desc: str = "",
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    quiet: bool = False,
    **options: Any,
) -> tqdm:
    """A tqdm bar on stderr that disappears when it is done; `quiet` shows nothing. options: more of tqdm's."""
    options = {"dynamic_ncols": True, **options}
    if not sys.stderr.isatty():
        options |= {
            "file": _Lines(sys.stderr),
            "bar_format": LINE,
            "delay": LINE_SECONDS,
            "mininterval": LINE_SECONDS,
            "maxinterval": LINE_SECONDS,
        }
    return tqdm(iterable, desc, total, leave=False, unit=unit, initial=initial, disable=quiet, **options)


def training_bar(total: int, initial: int, quiet: bool = False) -> tqdm:
    """Optimizer steps of a whole run. The time left is by the mean since the start, with validation and saving."""
    return progress_bar(total=total, unit="step", initial=initial, quiet=quiet, smoothing=0)


def format_seconds(seconds: float) -> str:
    """75 -> 0:01:15"""
    return str(timedelta(seconds=round(seconds)))


class _Lines:
    """A stream for tqdm: each state of the bar is a line of its own, without carriage returns."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if text := text.replace("\x1b[A", "").strip():
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        self.stream.flush()
