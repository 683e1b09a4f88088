"""Signals that end a training run between two steps: SIGTERM, SIGUSR1 (Slurm's warning before the time limit), Ctrl-C.

first signal -> noted -> all processes save the state of the same step -> one line with how to resume, exit code
128 + its number; Ctrl-C twice: at once, with the state that was saved before
"""

import os
import shlex
import signal
import sys
import threading
import time
from typing import Any

from common.cli.errors import SIGNALS, Stopped
from common.cli.paths import shell_command
from common.training.distributed import is_distributed, rank

TWICE = 0.5  # seconds; timeout(1) and launchers send a signal both to the process and to its group


class StopSignals:
    """number: of the first signal that came within the `with` block, 0 before."""

    def __init__(self) -> None:
        self.number, self.noted_at = 0, 0.0
        self.earlier: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)
        self.earlier = {}

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT and self.number and time.monotonic() - self.noted_at > TWICE:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if not self.number:
            self.number, self.noted_at = number, time.monotonic()
            if number == signal.SIGINT and sys.stderr.isatty() and rank() == 0:
                os.write(2, b"\nstopping after this step; Ctrl-C once more: at once\n")  # print could be under way


def stopped(number: int, step: int, state: object, advice: str) -> Stopped:
    """What to raise once a state is saved; the main process alone prints its line. state: None where none is kept."""
    if rank():
        return Stopped(number, "")
    saved = f"saved in {state}" if state else "no state is kept"
    return Stopped(number, f"stopped by {Stopped(number).name} at step {step:,}: {saved}; {advice}")


def resume_advice(*flags: str) -> str:
    """flags: by which a run is resumed, such as --resume."""
    words = [] if any(word.partition("=")[0] == flags[0] for word in sys.argv) else flags
    if is_distributed():
        return f"to resume: the same command {f'with {shlex.join(words)}' if words else 'again'}"
    return f"to resume: {shell_command('python', *sys.argv, *words)}"


def obey_main_process() -> None:
    """For data loader processes: a signal to the whole group must not take away the batches of the last step.

    Only SIGTERM from the main process, by which torch ends them, is obeyed; a Python handler does not know the sender.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # on macOS, which does not say who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_main_process, daemon=True).start()


def _wait_for_main_process() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
