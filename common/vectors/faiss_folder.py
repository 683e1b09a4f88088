"""Vector store in a folder: a table of images and their vectors, and a FAISS index of them.

folder:  metadata.json   images.sqlite (common/vectors/image_table.py)   index.faiss

The table is what the store holds; the index, whose ids are the table's, makes it fast. Whatever of the table an index
lacks, because an update was stopped or its file is damaged, is compared one by one, and rows that only the index has
are ignored: so every search is of the table as it is. An index is read through a memory map, which processes share.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.text.files import write_json
from common.text.schema import read_checked
from common.vectors import faiss_ids
from common.vectors.engine import Conditions, Matches
from common.vectors.faiss_index import (
    EXACT,
    ExactIndex,
    read_index,
    refusals,
    set_search_params,
    trained_index,
    write_index,
)
from common.vectors.image_table import ImageTable
from common.vectors.records import Stamp, StoreMetadata

MAX_REMOVED = 0.3  # share of a graph's rows that may be passed over before it is built again
MAX_GROWTH = 4  # an index is trained again once it would hold so many times the vectors that it was trained on
FEW_ROWS = 20_000  # so few are compared one by one, exactly, rather than sought among all


class FaissFolder:
    """Engine of local files. repair: discard damaged rows."""

    def __init__(self, folder: Path, repair: bool = False):
        self.folder, self.index_file, self.table_file = folder, folder / "index.faiss", folder / "images.sqlite"
        self.metadata: StoreMetadata = read_checked(
            folder / "metadata.json",
            StoreMetadata,
            "the folder holds no index; make one with build_index.py --image_dir DIR",
        )
        if not self.table_file.is_file():
            raise ValueError(
                f"{folder}: an index of an earlier version, or an unfinished one; make a new one: build_index.py "
                f"--index_dir NEW --image_dir DIR --vit_checkpoint {self.metadata['weights']}"
            )
        self.table = ImageTable(self.table_file, self.metadata["width"], self.metadata["dtype"])
        if repair:
            self.table.repair()
        self.parts: Path | None = folder / "parts"
        self._opened: tuple[Any, ...] = ()

    @classmethod
    def create(cls, folder: Path, metadata: StoreMetadata) -> "FaissFolder":
        folder.mkdir(parents=True, exist_ok=True)
        ImageTable(folder / "images.sqlite", metadata["width"], metadata["dtype"], create=True)
        write_json(folder / "metadata.json", metadata)
        return cls(folder)

    def __len__(self) -> int:
        return len(self.table)

    def stamps(self) -> list[Stamp]:
        return self.table.stamps()

    def rows(self) -> Iterator[tuple[list[Stamp], np.ndarray]]:
        return ((stamps, vectors) for _, stamps, vectors in self.table.rows(self.table.ids()))

    def add(self, stamps: Sequence[Stamp], vectors: np.ndarray) -> None:
        self.table.add(stamps, vectors)

    def remove(self, names: Collection[str]) -> None:
        self.table.remove(names)

    def change_kind(self, kind: str) -> None:
        self.index_file.unlink(missing_ok=True)
        self.metadata["kind"] = kind
        write_json(self.folder / "metadata.json", self.metadata)

    @property
    def _index_kind(self) -> str:
        """As faiss_index knows it: an exact one holds the numbers as the table does."""
        kind = self.metadata["kind"]
        return {"float16": "SQfp16", "float32": "Flat"}[self.metadata["dtype"]] if kind in EXACT else kind

    def finish(self) -> None:
        """Bring index.faiss up to date: remove and add rows, or build it again."""
        ids, index = self.table.ids(), self._read_index()
        if not len(ids):
            return
        has = faiss_ids.ids_of(index) if index else ids[:0]
        missing, gone = _split(ids, has)[1], _split(has, ids)[1]
        if len(ids) > MAX_GROWTH * self.metadata["trained_on"] and self.metadata["kind"] not in EXACT:
            index = None
        removed = index and len(gone) and faiss_ids.remove(index, gone)
        if (
            index
            and len(gone)
            and not removed
            and not (faiss_ids.is_graph(index) and len(gone) <= MAX_REMOVED * len(has))
        ):
            index = None
        if index and not removed and not len(missing):
            return
        if not (index and self._add(index, missing)):
            index, self.metadata["trained_on"] = self._build(ids), len(ids)
        self.metadata["index_checksum"] = write_index(self.index_file, index)
        write_json(self.folder / "metadata.json", self.metadata)  # last: an index without its own is not used

    def _add(self, index: Any, ids: np.ndarray) -> bool:
        """Whether FAISS can: it makes some kinds of graph of all their vectors at once."""
        try:
            for row_ids, _, vectors in self.table.rows(ids):
                index.add_with_ids(vectors, row_ids)
        except RuntimeError:
            return False
        return True

    def _build(self, ids: np.ndarray) -> Any:
        kind = self._index_kind
        index = faiss_ids.with_ids(trained_index(lambda: self._vectors(ids), len(ids), self.metadata["width"], kind))
        with refusals(kind, len(ids)):
            for row_ids, _, vectors in self.table.rows(ids):
                index.add_with_ids(vectors, row_ids)
        return index

    def _vectors(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        return (vectors for _, _, vectors in self.table.rows(ids))

    def _read_index(self, mapped: bool = False) -> Any:
        """None: missing, damaged, or of other vectors."""
        return read_index(self.index_file, self.metadata.get("index_checksum"), self.metadata["width"], mapped)

    def search(self, queries: np.ndarray, k: int, conditions: Conditions, search_params: str) -> list[Matches]:
        if search_params and self.metadata["kind"] in EXACT:
            raise ValueError(f"--search_params {search_params}: {self.folder} is searched exactly; nothing to set")
        index, has, inside, outside = self._open()
        if conditions:
            inside, outside = _split(ids := self.table.ids(conditions), has)
        else:
            ids = inside if not len(outside) else self.table.ids()
        restricted = len(inside) < len(has)
        if restricted and len(inside) <= FEW_ROWS:
            inside, outside = ids[:0], ids
        parts: list[Any] = []  # each cosines, ids
        if len(inside):
            set_search_params(faiss_ids.inner(index), search_params)
            found = faiss_ids.search_among(index, queries, k, inside) if restricted else index.search(queries, k)
            if restricted and (found is None or (found[1] >= 0).sum(1).min() < min(k, len(inside))):
                found = self._search_rows(queries, k, inside)
            parts.append(found)
            self._opened = () if search_params else self._opened  # they are the index's own from now on
        if len(outside):
            parts.append(self._search_rows(queries, k, outside))
        return self._matches(k, parts, len(queries))

    def _matches(self, k: int, parts: list[tuple[np.ndarray, np.ndarray]], count: int) -> list[Matches]:
        """Cosines and ids of parts of the rows, each (Q, any) with -1 for none -> the best k of all."""
        if not parts:
            return [[] for _ in range(count)]
        scores, ids = (np.concatenate(arrays, 1) for arrays in zip(*parts))
        names = self.table.names(set(ids[ids >= 0].tolist()))
        best = np.argsort(np.where(ids < 0, np.inf, -scores), 1, kind="stable")
        return [
            [(float(scores[query, at]), names[row]) for at in order if (row := int(ids[query, at])) in names][:k]
            for query, order in enumerate(best)
        ]

    def _search_rows(self, queries: np.ndarray, k: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exactly, of the rows `ids` -> cosines, ids (Q, min(k, n))"""
        read: list[np.ndarray] = []

        def blocks() -> Iterator[np.ndarray]:
            for row_ids, _, vectors in self.table.rows(ids):
                read.append(row_ids)
                yield vectors

        scores, rows = ExactIndex(blocks).search(queries, k)
        return scores, np.concatenate([ids[:0], *read])[rows]

    def _open(self) -> tuple[Any, ...]:
        """-> index or None, its ids, the table's in it and not in it; opened again when the files have changed."""
        files = [path.stat() for path in (self.table_file, self.index_file) if path.is_file()]
        state = [(file.st_ino, file.st_size, file.st_mtime_ns) for file in files]
        if not self._opened or self._opened[0] != state:
            self.metadata = read_checked(self.folder / "metadata.json", StoreMetadata)
            index, every = self._read_index(mapped=True), self.table.ids()
            has = faiss_ids.ids_of(index) if index else every[:0]
            inside, outside = _split(every, has)
            if len(outside):
                print(
                    f"{self.index_file}: lacks {len(outside)} of {len(every)} images, or is damaged; they are compared "
                    "one by one until build_index.py is run again",
                    file=sys.stderr,
                )
            self._opened = state, index, has, inside, outside
        return self._opened[1:]


def _split(ids: np.ndarray, has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending ids that an index has, and those that it lacks."""
    known = np.isin(ids, has, assume_unique=True)
    return ids[known], ids[~known]
