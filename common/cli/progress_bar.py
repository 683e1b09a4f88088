"""Progress bars: redrawn on a terminal, a line now and then in a file or pipe.

for batch in progress_bar(loader, "encoding"): ...
with progress_bar(desc="decoding", total=720, unit="img") as bar: bar.update()
with training_bar(total=4000, initial=0) as bar: bar.update()          one for all epochs, with the time left for all
"""

import math
import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 30  # between two lines where output is no terminal; a tenth of the expected time if that is less,
SHORTEST_SECONDS = 5  # but no less than this; what is faster prints none
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
    options = {"total": total, "unit": unit, "initial": initial, "disable": quiet, "leave": False, **options}
    if sys.stderr.isatty():
        return tqdm(iterable, desc, dynamic_ncols=True, **options)
    options |= {"file": _Lines(sys.stderr), "bar_format": LINE, "miniters": 1, "mininterval": min(0.1, LINE_SECONDS)}
    return _LineBar(iterable, desc, **options)


def training_bar(total: int, initial: int, quiet: bool = False) -> tqdm:
    """Optimizer steps of a whole run. The time left is by the mean since the start, with validation and saving."""
    return progress_bar(total=total, unit="step", initial=initial, quiet=quiet, smoothing=0)


def format_seconds(seconds: float) -> str:
    """75 -> 0:01:15"""
    return str(timedelta(seconds=round(seconds)))


class _LineBar(tqdm):
    """Shows its state when a line is due: each tenth, but LINE_SECONDS where the end is not known, and for bars within
    another, which are many."""

    shown = 0.0  # seconds from the start to the last line

    def display(self, *arguments: Any, **named: Any) -> None:
        done, elapsed, tenth = self.n - self.initial, self.format_dict["elapsed"], math.inf
        if self.total and done and not self.pos:
            tenth = elapsed * (self.total - self.initial) / done / 10
        if done and elapsed - self.shown >= min(LINE_SECONDS, max(SHORTEST_SECONDS, tenth)):
            self.shown = elapsed
            super().display(*arguments, **named)


class _Lines:
    """A stream for tqdm: each state of the bar is a line of its own, without carriage returns."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> None:
        if text := text.replace("\x1b[A", "").strip():
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        self.stream.flush()
