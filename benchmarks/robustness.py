"""Seeded random inputs through every door of benchmarks/doors -> the table of docs/robustness.md.

    python benchmarks/robustness.py --trials 20000 --doors images texts

Input number n of a door is a function of (seed, door, n); an input that fails is named by them and ends the run with
its traceback. Memory is the peak of the whole process, each door in one of its own.
"""

import argparse
import os
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"  # an input may name anything on the Hub

from benchmarks.doors import door_names, open_door


def try_door(name: str, trials: int, seed: int = 0) -> tuple[Counter[str], float, int]:
    """-> counts of outcomes; seconds of the slowest input; peak memory in MB."""
    trial, outcomes, worst = open_door(name), Counter[str](), 0.0
    with TemporaryDirectory() as folder:
        for number in range(trials):
            started = time.perf_counter()
            try:
                outcomes[trial(Random(f"{seed} {name} {number}"), Path(folder))] += 1
            except Exception as error:
                error.add_note(f"door {name}, seed {seed}, input {number}")
                raise
            worst = max(worst, time.perf_counter() - started)
    return outcomes, worst, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.splitlines()[0])
    parser.add_argument("--doors", nargs="+", choices=door_names(), default=door_names())
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| door | inputs | read | skipped by name | refused in a line | slowest (s) | peak memory (MB) |")
    print("|---|---|---|---|---|---|---|")
    for name in args.doors:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            outcomes, worst, memory = pool.submit(try_door, name, args.trials, args.seed).result()
        counts = " | ".join(f"{outcomes[outcome]:,}" for outcome in ("read", "skipped", "refused"))
        print(f"| {name} | {args.trials:,} | {counts} | {worst:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
