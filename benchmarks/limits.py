"""Share of the machine's limits (arithmetic, memory bandwidth) that each system reaches.

    python benchmarks/limits.py [--rounds 5]

limits   operations a second of the best fp32 matrix product; bytes a second of summing an array larger than any cache
steps    a training step of each system at the largest batch of benchmarks/scaling.py: operations, counted by
         tools/estimate/dry_run.py, over the first limit
search   exact search of a gallery: one query after the other reads all of it (bytes), many at once compute (operations)
tokens   LLaVA, new tokens of a batch: each reads the language model's weights and the batch's keys and values (bytes)

The median of the rounds counts; limits are measured again before each row, because the load on a machine changes.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.llava_speed import build as build_llava
from benchmarks.llava_speed import write_images
from benchmarks.scaling import POINTS, write_models
from benchmarks.turns import time_in_turns
from common.images.io import open_image
from common.training.device import disable_malloc_trim
from common.vectors.faiss_index import build_index
from llava.prefix_cache import ImagePrefixCache
from llava.tokens import ChatFormatter
from tools.estimate.dry_run import dry_step
from tools.estimate.estimate import read_step
from tools.estimate.training_step import random_batch, take_step

GIGA = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gallery", type=int, default=200_000, help="search: vectors of 768 numbers")
    parser.add_argument("--new_tokens", type=int, default=48, help="tokens: of each row")
    args = parser.parse_args()
    disable_malloc_trim()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, fp32\n")
    print("| what | seconds | 10^9 a second | the limit | share |\n|---|---|---|---|---|", flush=True)
    for rows in (steps, search, tokens):
        rows(args)


def row(what: str, work: float, unit: str, run: Callable[[], object], rounds: int) -> None:
    """work: operations or bytes of one run."""
    limit = {"operations": max_operations, "bytes": max_bytes}[unit](rounds)
    seconds = median_seconds(run, rounds)
    print(
        f"| {what} | {seconds:.3f} | {work / seconds / GIGA:.1f} {unit} | {limit / GIGA:.1f} | "
        f"{work / seconds / limit:.1%} |",
        flush=True,
    )


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    return time_in_turns({"run": run}, rounds)["run"]


def max_operations(rounds: int) -> float:
    size = 2048
    first, second = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / median_seconds(lambda: first @ second, rounds)


def max_bytes(rounds: int) -> float:
    array = torch.ones(2**28)  # 1 GiB
    return array.nbytes / median_seconds(array.sum, rounds)


def steps(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_models(Path(folder))
        for system, points in POINTS.items():
            flags = [paths.get(word, word) for word in points[2][2]]
            _, step = read_step([system, *flags])
            torch.manual_seed(0)
            model = step.build("fp32", bool(step.checkpointing))
            optimizer, batches = step.optimizer(model), [random_batch(step.batch(step.samples))] * step.accumulation
            memory = dry_step(step, "fp32", bool(step.checkpointing), step.samples)
            row(
                f"{system}, step: {step.description}, {step.samples} {step.unit}",
                memory.operations,
                "operations",
                partial(take_step, model, optimizer, batches, "fp32", step.clip_norm),
                args.rounds,
            )


def search(args: argparse.Namespace) -> None:
    gallery = np.random.default_rng(0).standard_normal((args.gallery, 768), dtype=np.float32)
    queries = gallery[:1000].copy()
    for name in ("flat", "exact"):
        index = build_index(lambda: iter([gallery]), *gallery.shape, name)
        row(
            f"search, {name}: a query of {args.gallery:,} x 768",
            gallery.nbytes,
            "bytes",
            partial(index.search, queries[:1], 10),
            args.rounds,
        )
        row(
            f"search, {name}: 1,000 queries at once",
            2.0 * len(queries) * gallery.size,
            "operations",
            partial(index.search, queries, 10),
            args.rounds,
        )


def tokens(args: argparse.Namespace) -> None:
    loaded = build_llava(argparse.Namespace(device="cpu", shape="small"))
    loaded.model.generation_config.eos_token_id = None  # all rows are generated to the end
    prompter = ChatFormatter(loaded.processor, "")
    weights = sum(parameter.nbytes for parameter in loaded.model.model.language_model.parameters())
    weights += loaded.model.lm_head.weight.nbytes
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), 16)
        images = [open_image(path) for path in sorted(Path(folder).iterdir())]
    for batch in (1, 16):
        shared = ImagePrefixCache(loaded.model, prompter, images[:batch])
        rest = shared.rest(prompter.prompt("What is this?"))
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in shared.cache.layers)
        held *= 1 + (len(rest) + args.new_tokens / 2) / shared.cache.get_seq_length()  # it grows
        row(
            f"tokens of LLaVA: {args.new_tokens} new ones, batch {batch}",
            args.new_tokens * (weights + held),
            "bytes",
            partial(shared.generate, [*range(batch)], [rest] * batch, args.new_tokens),
            args.rounds,
        )


if __name__ == "__main__":
    main()
