"""Ways that are compared take turns, each in a process of its own: its peak memory is then its own, and what else the
machine does at the time meets all of them alike."""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable

import torch


def in_turns(ways: Iterable[str], rounds: int) -> dict[str, list[dict]]:
    """Start the running script again with its own flags and `--way NAME` -> the JSON of its last line, each round."""
    found: dict[str, list[dict]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, runs in found.items():
            done = subprocess.run([sys.executable, *sys.argv, "--way", way], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-2000:]}")
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def middle(runs: list[dict], name: str, digits: int = 2) -> tuple[float, str]:
    """-> the median of a number over the rounds, and '(smallest .. largest)'"""
    values = [run[name] for run in runs]
    return statistics.median(values), f"({min(values):.{digits}f} .. {max(values):.{digits}f})"


def peak_memory() -> float:
    """MiB that this process has held at most: of the GPU where it used one, else of main memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
