"""Failures of the machine and of other processes, in one line with the remedy.

memory, a data loader process, /dev/shm, open files, another process of a distributed run -> one line

They reach the main process as a RuntimeError of torch wherever it then is, even in a save, so they are distinguished
by their text, and cannot be caught closer to their cause.
"""

import re
import shlex
import sys
import traceback

from common.cli.hub_failures import explain_hub, is_of_hub

MEMORY = re.compile(
    r"out of memory|can't allocate memory|Cannot allocate memory|ALLOC_FAILED|failed to map segment", re.IGNORECASE
)
DIED = re.compile(r"DataLoader worker \(pid.*?\) (is killed|exited)|Pin memory thread exited")
RAISED = re.compile(r"Caught \w+ in (DataLoader worker process|pin memory thread)")
PEER = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|remote process exited|Read error \[127", re.IGNORECASE
)
LOADER_FLAGS = "NUM_WORKERS (--num_workers, --data.num_workers or --dataloader_num_workers)"
BATCH_HINT = "use a smaller batch or a smaller image, or --device cpu"


def batch_hint(system: str, flags: str) -> str:
    """memory_hint of a training. system: as tools/estimate names it. flags: to lower or to give."""
    words = shlex.join(word for word in sys.argv[1:] if word != "--debug")
    return f"{flags}; what fits: python tools/estimate/estimate.py {system} {words} --gpu_memory_gib GIB"


def loader_failed(error: BaseException) -> bool:
    """Whether the error is of a data loader process: it died, or an exception of it was handed over."""
    return bool(DIED.search(str(error)) or RAISED.search(str(error)))


def explain_failure(error: BaseException, memory_hint: str = "") -> str:
    """One line for a failure of the machine or of another process, '' for any other error.

    memory_hint: what to do where memory does not suffice, for the script at hand.
    """
    while error.__cause__ is not None and DIED.search(str(error.__cause__)):  # which names the signal
        error = error.__cause__
    text = str(error)
    if RAISED.search(text):
        return _explain_in_loader(text)
    if "Bus error" in text or ("No space left" in text and "/torch_" in text):
        return (
            f"shared memory is full, through which data loader processes pass batches ({_first_line(text)}); give "
            f"/dev/shm more room (docker run --shm-size 8g, or --ipc host), or lower {LOADER_FLAGS}; 0 needs none"
        )
    if "Too many open files" in text or "received 0 items of ancdata" in text:
        return f"too many open files ({_first_line(text)}); raise the limit (ulimit -n 4096), or lower {LOADER_FLAGS}"
    if DIED.search(text) or (isinstance(error, (ConnectionError, EOFError)) and _passed_through_loader(error)):
        return (
            f"a data loader process was killed, usually for lack of memory ({_first_line(text)}); "
            f"lower {LOADER_FLAGS} and resume the run"
        )
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, ImportError)) and MEMORY.search(text)):
        return f"out of memory ({_first_line(text) or 'MemoryError'}); {memory_hint or BATCH_HINT}"
    if type(error).__name__ in ("DistBackendError", "DistNetworkError") or (
        isinstance(error, RuntimeError) and PEER.search(text)
    ):
        return f"another process of this run has ended ({_first_line(text)}); its own message says why; resume the run"
    return explain_hub(error) if is_of_hub(error) else ""


def _passed_through_loader(error: BaseException) -> bool:
    """A process that is killed while it hands over a batch closes the connection first."""
    return any("torch/utils/data" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _explain_in_loader(text: str) -> str:
    """The last exception of the traceback that a loader process has sent; the notes below it name the sample."""
    lines = [line.strip() for line in text.strip().splitlines()]
    starts = [
        number for number, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Warning|Interrupt)\b", line)
    ]
    message = " ".join(lines[starts[-1] :]) if starts else lines[-1]
    inner = explain_failure(RuntimeError(message)) if not RAISED.search(message) else ""
    return inner or f"{message} (in a data loader process)"


def _first_line(text: str) -> str:
    """Without the address of the source code in front and the advice of the library behind it."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return re.sub(r"^\[.*?\]\s*", "", line).split(". ")[0].rstrip(". ")
