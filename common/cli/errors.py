"""User errors end a script with one line on stderr and exit code 1, or 2 where the command line is wrong; bugs keep
their traceback."""

import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path


class CommandLineError(ValueError):
    """An unknown flag, a forgotten argument, or a value of the wrong type."""


def run_script(main: Callable[[list[str]], object]) -> None:
    """Call main(argv). `--debug` anywhere on the command line shows the traceback of a user error too."""
    argv = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    if isinstance(sys.stdout, TextIOWrapper):  # each line appears when it is printed, in a file or pipe too
        sys.stdout.reconfigure(line_buffering=True)
    try:
        main(argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if debug:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, CommandLineError) else 1)
    except RuntimeError as error:
        if debug or not reader_was_killed(error):
            raise
        sys.exit(
            f"{Path(sys.argv[0]).name}: error: a data loader process was killed, usually for lack of memory "
            f"({one_line(error)}); use fewer of them and resume the run"
        )


def reader_was_killed(error: Exception) -> bool:
    """Whether a data loader process died. torch raises the error wherever the main process is, even in a save, so it
    cannot be caught closer to the loader."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def one_line(error: Exception) -> str:
    """The message without line breaks; that of an OSError names the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
