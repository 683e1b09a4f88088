"""Vectors of N images in order, read on demand, each of them checked.

A vector that is not finite makes every cosine with it NaN, and one of zeros has no direction: both are refused with
their file and row when they are read.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.text.files import check_file

BLOCK_ROWS = 65_536  # float32 vectors held at once by `blocks`
HEADER = 128  # bytes of a .npy file before its values
SMALLEST_LENGTH = 1e-12  # below, a vector has no direction


@dataclass
class FeatureSet:
    """`parts`: the vectors, each (n, D); `sources`: the file of each part."""

    parts: list[np.ndarray]
    paths: list[str]
    digests: list[str]  # of the files' bytes; '' = unknown
    metadata: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    sources: Sequence[object] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def width(self) -> int:
        return self.parts[0].shape[1]

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """All vectors in order, (up to `rows`, D) float32 at a time."""
        before = 0
        for number, part in enumerate(self.parts):
            source = self.sources[number] if self.sources else "features"
            for start in range(0, len(part), rows):
                with np.errstate(over="ignore"):  # of float64; check_rows refuses what is infinite then
                    block = np.asarray(part[start : start + rows], np.float32)
                check_rows(block, source, start, self.paths[before + start :])
                yield block
            before += len(part)

    def all(self) -> np.ndarray:
        """-> (N, D) float32"""
        return np.concatenate(list(self.blocks()))


def map_array(path: Path) -> np.ndarray:
    """A .npy file, mapped into memory; without values there is nothing to map."""
    check_file(path)
    try:
        if path.stat().st_size > HEADER:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy raises any kind for a broken header
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "; save texts as numpy.array(texts, dtype=str)" if "object" in reason else ""
        raise ValueError(f"{path}: cannot be read as .npy ({reason}{remedy})") from None


def check_rows(vectors: np.ndarray, source: object, first: int = 0, names: Sequence[str] = ()) -> None:
    """ValueError names the file and the row, counted from 0, of a vector (D,) float32 that cannot be compared."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # (n,)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > SMALLEST_LENGTH)))
    if len(wrong):
        row = int(wrong[0])
        name = f" ({names[row]})" if row < len(names) and names[row] else ""
        fault = "is zero, which has no direction" if lengths[row] <= SMALLEST_LENGTH else "holds NaN or infinite values"
        raise ValueError(f"{source}: row {first + row}{name} {fault}; remove such rows, {len(wrong)} of these")


def as_vectors(array: np.ndarray, source: object) -> np.ndarray:
    """An array of any origin, if it holds vectors (N, D) of numbers; other numbers than our own are named on stderr."""
    if array.ndim != 2 or not array.shape[1] or not (array.dtype.kind == "f" or array.dtype == np.int8):
        raise ValueError(
            f"{source}: {array.dtype} of shape {array.shape}; expected (N, D) in float16, float32, float64 or int8"
        )
    if array.dtype not in (np.float16, np.float32):
        print(f"{source}: {array.dtype} vectors, read as float32", file=sys.stderr)
    return array
