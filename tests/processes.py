"""Scripts and functions in processes of their own: started, launched together, killed and resumed."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT

SINGLE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def start_script(script: str, arguments: list[str], **options) -> subprocess.Popen:
    """A script of the repository as a process of its own, on one thread."""
    command = [sys.executable, str(ROOT / script), *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=ROOT, env=SINGLE_THREAD, text=True, **options)


def torchrun(script: str, arguments: list[str], processes: int = 2) -> str:
    """A script of the repository in several processes that meet at a free port -> its stderr; it must end well."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd="/", env=SINGLE_THREAD, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def on_devices(world: int, function: Callable, *arguments) -> None:
    """function(rank, *arguments) in `world` processes, forked from one that has imported the large libraries."""
    multiprocessing.set_forkserver_preload(["torch", "timm", "open_clip"])
    torch.multiprocessing.start_processes(function, arguments, world, start_method="forkserver")


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 300) -> None:
    """Fails where the process ends before the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def steps_in(logs: Path, last: Path) -> Callable[[], int]:
    """-> how many steps a run of our loop has logged; 0 until there is a state, without which a run starts anew."""

    def count() -> int:
        logged = sum(path.read_text().count('"train/loss"') for path in logs.glob("*/log.jsonl"))
        return logged if last.is_dir() else 0

    return count


def kill_after_a_step(script: str, arguments: list[str], written: Callable[[], int], steps: int = 1, **options) -> bool:
    """SIGKILL a run at a random moment of the 0.3 s after its next `steps` steps, wherever it then is.

    written: how many steps the run's folder shows. -> whether it was still running.
    """
    before, process = written(), start_script(script, arguments, **options)
    while written() < before + steps and process.poll() is None:
        time.sleep(0.005)
    time.sleep(np.random.default_rng().uniform(0, 0.3))
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def kill_and_resume(
    script: str, arguments: list[str], written: Callable[[], int], times: int, resume: tuple[str, ...] = ("--resume",)
) -> int:
    """SIGKILL a run `times` times, then let it end -> how many of the kills met it running."""
    struck = sum(
        kill_after_a_step(script, [*arguments, *(resume if number else ())], written) for number in range(times)
    )
    end = start_script(script, [*arguments, *resume])
    _, error = end.communicate()
    assert end.returncode == 0, error
    return struck
