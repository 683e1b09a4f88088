"""Interface of a vector store's engine: rows of an image file's state and its vector, added, removed and searched.

Two engines: a folder of FAISS and SQLite (faiss_folder.py) and a collection of Milvus (milvus_collection.py).
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from common.vectors.records import Stamp, StoreMetadata

Conditions = Sequence[tuple[str, list[str | int]]]  # of common/vectors/filters.py
Matches = list[tuple[float, str]]  # cosine and name, best first


class Engine(Protocol):
    """A row is known by the name of its image; a row that is added takes the place of one of the same name."""

    metadata: StoreMetadata
    parts: Path | None  # folder for what several processes encode; None: each may write to the engine itself

    def __len__(self) -> int: ...

    def stamps(self) -> list[Stamp]:
        """Of every row."""

    def rows(self) -> Iterator[tuple[list[Stamp], np.ndarray]]:
        """Every row, in blocks: n stamps, their vectors (n, D) float32."""

    def add(self, stamps: Sequence[Stamp], vectors: np.ndarray) -> None:
        """(n, D) unit vectors; they are on the disk, or the server's, when it returns."""

    def remove(self, names: Collection[str]) -> None: ...

    def finish(self) -> None:
        """Bring what makes search fast up to date with the rows."""

    def change_kind(self, kind: str) -> None:
        """Another index of the same vectors, made by the next `finish`."""

    def search(self, queries: np.ndarray, k: int, conditions: Conditions, search_params: str) -> list[Matches]:
        """Unit vectors (Q, D) -> for each up to k rows that meet the conditions."""
