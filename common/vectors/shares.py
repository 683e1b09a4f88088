"""Encoding the new images of a vector store by one process, or by several of torchrun.

Each of several encodes its share, into the server that they all reach, or else into a file that process 0 collects.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch.distributed

from common.training.distributed import is_distributed, rank
from common.vectors.engine import Engine
from common.vectors.extractor import Extractor
from common.vectors.image_table import ImageTable
from common.vectors.milvus_collection import MilvusCollection
from common.vectors.records import Stamp, StoreMetadata
from common.vectors.shards import l2_normalize

Value = TypeVar("Value")
SAVED_ROWS = 8192
SAVE_SECONDS = 300


class Plan(NamedTuple):
    """What process 0 knows of an update."""

    place: str
    image_dir: Path
    metadata: StoreMetadata
    parts: Path | None  # folder for what each process encodes; None: into `place` itself
    new: list[Stamp]


def encode_share(
    plan: Plan | None, extractor: Extractor, engine: Engine | None = None, quiet: bool = False
) -> dict[str, str]:
    """Encode this process's share of the new images -> those of all shares that were skipped, with reasons.

    plan, engine: process 0's.
    """
    if not is_distributed():
        assert plan is not None and engine is not None
        return _encode(plan.new, plan.image_dir, extractor, engine.add, quiet)
    place, image_dir, metadata, parts, new = cast(Plan, from_first(plan))
    number, world = rank(), torch.distributed.get_world_size()
    share = new[len(new) * number // world : len(new) * (number + 1) // world]
    if parts:
        parts.mkdir(parents=True, exist_ok=True)
        part = ImageTable(parts / f"part-{number:05}.sqlite", metadata["width"], metadata["dtype"], create=True)
        skipped = _encode(share, image_dir, extractor, part.add, quiet)
    else:
        shared = MilvusCollection(place) if engine is None else engine
        skipped = _encode(share, image_dir, extractor, shared.add, quiet)
    all_skipped: list[dict[str, str]] = [{}] * world
    torch.distributed.all_gather_object(all_skipped, skipped)
    return {name: reason for skipped in all_skipped for name, reason in skipped.items()}


@contextmanager
def torchrun_processes() -> Iterator[None]:
    """The processes that torchrun started can talk to each other; alone, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))  # shares may take longer than others
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def from_first(value: Value) -> Value:
    """Process 0's, in every process."""
    values = [value]
    if is_distributed():
        torch.distributed.broadcast_object_list(values)
    return values[0]


def _encode(
    stamps: Sequence[Stamp],
    image_dir: Path,
    extractor: Extractor,
    add: Callable[[Sequence[Stamp], np.ndarray], None],
    quiet: bool,
) -> dict[str, str]:
    """-> {path: reason} of files that cannot be read"""
    skipped = {}
    known = {image_dir / stamp.name: stamp for stamp in stamps}

    def rows() -> Iterable[tuple[Stamp, np.ndarray]]:
        for record, vector in extractor.embed(list(known), quiet or not known):
            if vector is None:
                skipped[str(record.path)] = record.problem
            else:
                yield known[record.path], vector

    save_rows(rows(), add)
    return skipped


def save_rows(rows: Iterable[tuple[Stamp, np.ndarray]], add: Callable[[Sequence[Stamp], np.ndarray], None]) -> None:
    """Add rows of any length a block at a time: when it is full, every SAVE_SECONDS, and at the end, also of an
    interruption."""
    pending: list[tuple[Stamp, np.ndarray]] = []
    saved = time.monotonic()

    def save() -> None:
        stamps, vectors = zip(*pending)
        add(stamps, l2_normalize(np.stack(vectors)))
        pending.clear()

    try:
        for row in rows:
            pending.append(row)
            if len(pending) == SAVED_ROWS or time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
    finally:
        if pending:
            save()
