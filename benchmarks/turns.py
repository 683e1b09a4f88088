"""Timing of variants in turn, so that other load on the machine affects all of them alike."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch


def run_in_turns(variants: Iterable[str], rounds: int) -> dict[str, list[dict]]:
    """Start the running script with its own flags and `--way NAME`, each time in a new process, whose peak memory is
    then that of one variant -> the JSON of its last line, for each round."""
    results: dict[str, list[dict]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant, runs in results.items():
            process = subprocess.run([sys.executable, *sys.argv, "--way", variant], capture_output=True, text=True)
            if process.returncode:
                raise SystemExit(f"{variant}: {process.stderr[-2000:]}")
            runs.append(json.loads(process.stdout.splitlines()[-1]))
    return results


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
