"""User errors end a script with one line on stderr and exit code 1, or 2 where the command line is wrong; bugs keep
their traceback. Signals that ask it to stop end it with a line and 128 + their number: 130 Ctrl-C, 138 SIGUSR1, 143
SIGTERM."""

import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any

from common.cli.failures import explain_failure, loader_failed

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # SIGUSR1 is Slurm's warning before the time limit
SIGNALS = (signal.SIGINT, *STOP_SIGNALS)  # SIGINT is Ctrl-C
ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's controls, formats (of direction, too), surrogates, line ends
JOINERS = "\u200c\u200d"  # formats that Persian and emoji are written with


class CommandLineError(ValueError):
    """An unknown flag, a forgotten argument, or a value of the wrong type."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the script to stop. words: of the line to print, '' for none."""

    advice = ""  # how to go on, set by a script that knows it

    def __init__(self, number: int, words: str | None = None):
        self.number = signal.Signals(number)
        self.words = f"stopped by {self.name}" + (f"; {self.advice}" * bool(self.advice)) if words is None else words
        super().__init__(self.words)

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.number == signal.SIGINT else self.number.name


def run_script(main: Callable[[list[str]], object], memory_hint: str = "") -> None:
    """Call main(argv). `--debug` anywhere on the command line shows the traceback of a user error too.

    memory_hint: the remedy to name where memory does not suffice.
    """
    argv = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    script = Path(sys.argv[0]).name
    if isinstance(sys.stdout, TextIOWrapper):  # each line appears when it is printed, in a file or pipe too
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # for terminals that are not UTF-8
    if not sys.stderr.isatty():  # the bars of transformers and huggingface_hub redraw themselves there, too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with _stopped_by_signals():
            main(argv)
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        if stopped.words:
            print(f"{script}: {stopped.words}", file=sys.stderr)
        _end_without_words()
        sys.exit(128 + stopped.number)
    except Exception as error:
        failure = explain_failure(error, memory_hint)
        if debug or not (failure or isinstance(error, (ValueError, OSError))):
            raise
        print(f"{script}: error: {printable(failure) or one_line(error)}", file=sys.stderr)
        _end_without_words()
        sys.exit(2 if isinstance(error, CommandLineError) else 1)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Signals raise Stopped within the block."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    earlier = {number: signal.signal(number, _raise_stopped) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def exit_at_signals() -> None:
    """From here to run_script(main), while a script imports what takes seconds, a signal or a lack of memory ends it
    with its line."""
    sys.excepthook, sys.unraisablehook = _explain_import, _show_unless_of_loader
    for number in SIGNALS:
        signal.signal(number, _exit)


def _explain_import(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    failure = explain_failure(error, "the libraries alone need more") if isinstance(error, Exception) else ""
    if failure and "--debug" not in sys.argv:
        print(f"{Path(sys.argv[0]).name}: error: {printable(failure)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _show_unless_of_loader(unraisable: Any) -> None:
    """torch reports a dead loader process by raising wherever Python is, also at a fork or in a finalizer, where the
    exception is only printed. The loader raises it again at the next batch."""
    if not loader_failed(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _raise_stopped(number: int, _frame: object) -> None:
    raise Stopped(number)


def _exit(number: int, _frame: object) -> None:
    os.write(2, f"{Path(sys.argv[0]).name}: {Stopped(number).words}\n".encode())
    os._exit(128 + number)


def _end_without_words() -> None:
    """The last line is printed: a launcher's signal to a process that is ending adds no second one."""
    for number in SIGNALS:
        if signal.getsignal(number) is _exit:
            signal.signal(number, lambda number, _frame: os._exit(128 + number))


def _reset_signals() -> None:
    """Processes that are forked from here end at a signal as any other does."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) in (_raise_stopped, _exit):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_reset_signals)


def one_line(error: Exception) -> str:
    """The message and its notes without line breaks, fit for a terminal; that of an OSError names the file."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(" ".join(" ".join([text, *getattr(error, "__notes__", ())]).split()))


def printable(name: object) -> str:
    """A file name or a text for one line of a terminal: control characters, which move its cursor or forge lines, and
    the surrogates of names that are not UTF-8, are escaped as in Python."""
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in ESCAPED and letter not in JOINERS else letter
        for letter in str(name)
    )
