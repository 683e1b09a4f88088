"""How a script ends: a person's mistake is one line on stderr and exit 1, a bug keeps its traceback."""

import sys
from collections.abc import Callable
from pathlib import Path


def run_script(main: Callable[[list[str]], object]) -> None:
    """Call main(argv). `--debug` anywhere on the command line shows the traceback of a person's mistake too."""
    argv = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    try:
        main(argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if debug:
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: error: {one_line(error)}")
    except RuntimeError as error:
        if debug or not reader_was_killed(error):
            raise
        sys.exit(
            f"{Path(sys.argv[0]).name}: error: a process that reads data was killed, most often for want of memory "
            f"({one_line(error)}); fewer of them need less, and the run can be resumed"
        )


def reader_was_killed(error: Exception) -> bool:
    """Whether a process that reads data died. torch raises that wherever the main process is, in a save as well, so no
    place nearer to the data can catch it."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def one_line(error: Exception) -> str:
    """The message without line breaks; an OSError says which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
