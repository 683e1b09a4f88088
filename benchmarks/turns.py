"""Timing of variants in turn, so that other load on the machine affects all of them alike."""

import json
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

FORK = multiprocessing.get_context("fork")
Found = dict[str, Any]  # way -> the results of its rounds, as a script's JSON has them


def run_forked(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a process of its own, so that memory, its peak and a failure are its own. Everything is
    imported there already; in return, the process that calls must not have computed anything, neither on a GPU nor in
    OpenMP threads, which a fork does not inherit. ChildProcessError says in a line why there is no result."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        problem, result = receiver.recv()
    except EOFError:
        process.join()
        problem, result = f"ended with code {process.exitcode}", None
    process.join()
    if problem:
        raise ChildProcessError(problem)
    return result


def _send(sender: Connection, function: Callable[..., Any], arguments: tuple) -> None:
    try:
        sender.send(("", function(*arguments)))
    except (Exception, SystemExit) as error:  # whatever it is, the others are measured
        traceback.print_exc()
        sender.send((_in_a_line(error), None))


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def run_in_turns(
    measure: Callable[..., dict], ways: Iterable[str], rounds: int, *arguments: Any
) -> dict[str, list[dict]]:
    """measure(way, *arguments) of each way in turn, each time in a process of its own -> the results of its rounds.

    What has been measured so far is printed as JSON after each, so that it is kept when the run is ended. A way that
    fails is named on stderr and the others go on; SystemExit, at the end, where no round of it succeeded.
    """
    results: dict[str, list[dict]] = {way: [] for way in ways}
    problems: dict[str, str] = {}
    for _ in range(rounds):
        for way, runs in results.items():
            try:
                runs.append(run_forked(measure, way, *arguments))
            except ChildProcessError as error:
                problems[way] = str(error)
                print(f"{way}: {error}", file=sys.stderr, flush=True)
            print(json.dumps({way: runs for way, runs in results.items() if runs}), flush=True)
    if failed := [f"{way} ({problems[way]})" for way, runs in results.items() if not runs]:
        raise SystemExit(f"no result: {', '.join(failed)}")
    return results


def run_limited(script: Callable[[list[str]], Any], flags: list[str], seconds: float) -> tuple[Found, str]:
    """Run a script in a process group that ends with it -> the JSON that it printed, and why it failed or ''."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "stdout"), Path(folder, "stderr")
        process = FORK.Process(target=_run_script, args=(script, flags, output, errors))
        process.start()
        try:
            process.join(seconds)
        finally:  # an interrupted run, too, leaves nobody on the GPU
            failed = "" if process.exitcode == 0 else f"ended with code {process.exitcode}"
            if process.is_alive():
                failed = f"longer than {seconds:.0f} s"
            process.kill()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
        found: Found = {}
        for line in output.read_text(errors="replace").split("\n")[:-1]:  # whole lines
            if line.startswith(("{", "[{")):
                results = json.loads(line)
                found |= results if isinstance(results, dict) else {"rows": results}
        if failed.startswith("ended"):
            failed = (errors.read_text(errors="replace").strip().splitlines() or [failed])[-1]
    return found, failed


def _run_script(script: Callable[[list[str]], Any], flags: list[str], output: Path, errors: Path) -> None:
    os.setsid()
    for path, name, number in ((output, "stdout", 1), (errors, "stderr", 2)):
        file = path.open("w", buffering=1)
        os.dup2(file.fileno(), number)  # of processes that the script starts
        setattr(sys, name, file)
    warnings.simplefilter("ignore")
    try:
        script(flags)
    except Exception as error:
        traceback.print_exc()
        sys.exit(_in_a_line(error))


def time_in_turns(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each variant in this process, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def median_of(runs: Sequence[dict], name: str, digits: int = 2) -> tuple[float, str]:
    """-> the median of a number over the rounds, and its range: '(smallest .. largest)'"""
    values = [run[name] for run in runs]
    return statistics.median(values), f"({min(values):.{digits}f} .. {max(values):.{digits}f})"


def peak_memory() -> float:
    """Peak of this process in MiB: of GPU memory if it used a GPU, else of main memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def on_host(value: Any) -> Any:
    """As a loader gives it: in pinned memory where there is a GPU."""
    return value.pin_memory() if torch.is_tensor(value) and torch.cuda.is_available() else value
