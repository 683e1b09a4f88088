"""Vectors of a folder of images on disk, updated as images come and go, and searched.

image folder -> images that are new or changed -> shards of vectors -> exact search, or a FAISS index of the shards
queries (Q, D) -> cosines (Q, k), paths

store folder:  metadata.json  shard-*.npy, shard-*.json (vectors, and [name, size, time] of their files)
               removed.json (files that are gone)  index.faiss (an approximate index of the rows of all shards)

Shards are only added. A deleted file is listed in removed.json and skipped in search; once too many are, the shards
are rewritten. A killed update loses SAVE_SECONDS of work at most, an interrupted one nothing.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.images.folders import list_images
from common.text.files import write_json
from common.text.schema import read_checked
from common.vectors.extractor import Extractor, difference
from common.vectors.faiss_index import (
    ExactIndex,
    Index,
    build_index,
    create_index,
    read_index,
    set_search_params,
    write_index,
)
from common.vectors.feature_set import check_rows
from common.vectors.records import Stamp, StoreMetadata
from common.vectors.shards import Shard, l2_normalize, read_shard, remove_shard, shard_numbers, write_shard

INDEX = "index.faiss"
CACHE = ".image_index"  # hidden, so that list_images skips it
EXACT = ("flat", "exact")  # without a file
SHARD_SIZE = 8192  # images
SAVE_SECONDS = 300
MAX_REMOVED = 0.3  # share of rows that may be gone before the shards are rewritten
MAX_SMALL_SHARDS = 200
MAX_GROWTH = 4  # an index is trained again once it would hold so many times the vectors that it was trained on


class VectorStore:
    """`paths`: the images, sorted; `skipped`: unreadable files of the last update; `metadata`: how vectors are made.

    image_dir: where the images are now, if they have moved. repair: discard damaged shards.
    """

    def __init__(self, folder: str | Path, image_dir: str | Path | None = None, repair: bool = False):
        self.folder = Path(folder)
        self.metadata: Any = read_checked(
            self.folder / "metadata.json",
            StoreMetadata,
            "the folder holds no index; make one with build_index.py --image_dir DIR",
        )
        self.image_dir = Path(image_dir or self.metadata["image_dir"])
        self.skipped: dict[Path, str] = {}
        for number in shard_numbers(self.folder) if repair else ():
            try:
                read_shard(self.folder, number, Stamp, verify=True)
            except ValueError:
                self._remove(number)
        self._load()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        image_dir: str | Path,
        metadata: dict[str, Any],
        kind: str = "flat",
        dtype: str = "float16",
    ) -> "VectorStore":
        """An empty one. metadata: an extractor's. kind: a name of faiss_index, or a FAISS factory string."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        origin = {"image_dir": str(Path(image_dir).resolve()), "kind": kind, "dtype": dtype, "trained_on": 0}
        write_json(Path(folder) / "metadata.json", origin | metadata)
        return cls(folder)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> list[Path]:
        return [self.image_dir / self.stamps[row].name for row in self.rows]

    def vectors(self) -> np.ndarray:
        """(N, D) float32 in the order of `paths`"""
        return np.concatenate([part.astype(np.float32) for part in self._checked()])[self.rows]

    def update(self, extractor: Extractor, quiet: bool = False) -> dict[str, int]:
        """Encode new and changed images, drop those that are gone -> counts of added, removed and all images."""
        if differing := difference(self.metadata, extractor.metadata):
            raise ValueError(f"{self.folder}: was built with {differing}; make a new index")
        before, known = {self.stamps[row] for row in self.rows}, set(self.stamps)
        unlisted: dict[str, str] = {}
        current = {Stamp.of(path, self.image_dir): path for path in list_images(self.image_dir, unlisted)}
        check_kind(self.metadata["kind"], len(current), extractor)
        new = {path: stamp for stamp, path in current.items() if stamp not in known}
        self.skipped = {Path(name): reason for name, reason in unlisted.items()}
        self._append(self._encode(new, extractor, quiet))
        if known - current.keys() != self.removed:
            write_json(self.folder / "removed.json", sorted(known - current.keys()))
        self._load()
        if not len(self):
            raise ValueError(
                f"{self.image_dir}: none of its {len(current)} images can be read; {next(iter(self.skipped.values()))}"
            )
        many_small = len(self.shards) > MAX_SMALL_SHARDS + len(self) / SHARD_SIZE
        if many_small or len(self) < (1 - MAX_REMOVED) * len(self.stamps):
            self._compact()
        self._update_index()
        after = {self.stamps[row] for row in self.rows}
        return {"added": len(after - before), "removed": len(before - after), "images": len(self)}

    def add(self, rows: Iterable[tuple[Stamp, np.ndarray]]) -> None:
        """Vectors (D,) made elsewhere, by the same weights and options."""
        self._append(rows)
        self._load()
        self._update_index()

    def change_kind(self, kind: str) -> None:
        """Another index of the same vectors; the next update makes it."""
        (self.folder / INDEX).unlink(missing_ok=True)
        self.metadata["kind"] = kind
        write_json(self.folder / "metadata.json", self.metadata)

    def search(
        self, queries: np.ndarray, k: int, search_params: str = ""
    ) -> tuple[list[list[float]], list[list[Path]]]:
        """Unit vectors (Q, D) -> cosines, highest first, and images: Q lists of k, shorter if it found fewer.

        search_params: of an approximate index, such as 'nprobe=64'.
        """
        if not len(self):
            raise ValueError(f"{self.folder}: holds no image yet; run build_index.py again")
        queries, k = np.asarray(queries, np.float32), min(k, len(self))
        width = self.parts[0].shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries {queries.shape}: the index holds vectors of width {width}")
        index, wanted = self._open_index(search_params), k
        live = np.isin(np.arange(len(self.stamps)), self.rows)
        while True:
            scores, rows = index.search(queries, wanted)
            usable = (rows >= 0) & (rows < len(live))
            usable &= live[np.where(usable, rows, 0)]
            if wanted >= len(self.stamps) or (usable.sum(1) >= k).all():
                break
            wanted = min(2 * wanted + 16, len(self.stamps))  # removed images took places of present ones
        kept = [np.flatnonzero(row)[:k] for row in usable]
        return (
            [score[keep].tolist() for score, keep in zip(scores, kept)],
            [[self.image_dir / self.stamps[row].name for row in found[keep]] for found, keep in zip(rows, kept)],
        )

    def _load(self) -> None:
        self.shards = {number: read_shard(self.folder, number, Stamp) for number in shard_numbers(self.folder)}
        self.parts = [shard.vectors for shard in self.shards.values()]
        self.stamps = [Stamp(*image) for shard in self.shards.values() for image in shard.images]
        file = self.folder / "removed.json"
        removed: Any = read_checked(file, list[Stamp]) if file.is_file() else []
        self.removed = {Stamp(*stamp) for stamp in removed}
        for stamp in self.stamps:
            stamp.check(self.folder)
        if len(widths := {part.shape[1] for part in self.parts}) > 1:
            raise ValueError(f"{self.folder}: shards of widths {', '.join(map(str, sorted(widths)))}; make a new index")
        last = {stamp.name: row for row, stamp in enumerate(self.stamps) if stamp not in self.removed}
        self.rows = [last[name] for name in sorted(last, key=lambda name: name.split("/"))]  # as list_images sorts

    def _encode(self, new: dict[Path, Stamp], extractor: Extractor, quiet: bool) -> Iterator[tuple[Stamp, np.ndarray]]:
        for record, vector in extractor.embed(list(new), quiet or not new):
            if vector is None:
                self.skipped[record.path] = record.problem
            else:
                yield new[record.path], vector

    def _append(self, rows: Iterable[tuple[Stamp, np.ndarray]]) -> None:
        """Write rows as new shards: when one is full, every SAVE_SECONDS, and at the end, also of an interruption."""
        pending: list[tuple[Stamp, np.ndarray]] = []
        saved = time.monotonic()
        try:
            for row in rows:
                pending.append(row)
                if len(pending) == SHARD_SIZE or time.monotonic() - saved > SAVE_SECONDS:
                    self._write(pending)
                    pending, saved = [], time.monotonic()
        finally:
            if pending:
                self._write(pending)

    def _write(self, rows: list[tuple[Stamp, np.ndarray]]) -> None:
        stamps, vectors = zip(*rows)
        shard = Shard(np.stack(vectors).astype(self.metadata["dtype"]), list(map(list, stamps)), {})
        write_shard(self.folder, max(shard_numbers(self.folder), default=-1) + 1, shard)

    def _compact(self) -> None:
        """Rewrite the live rows as new shards, then delete the old ones; rows that a stop leaves twice count once."""
        parts, ends = self.parts, np.cumsum([len(part) for part in self.parts])
        part_of = np.searchsorted(ends, self.rows, side="right")
        self._append((self.stamps[row], parts[part][row - ends[part]]) for row, part in zip(self.rows, part_of))
        for number in self.shards:
            self._remove(number)
        self._load()

    def _remove(self, number: int) -> None:
        (self.folder / INDEX).unlink(missing_ok=True)  # its rows are counted over all shards
        remove_shard(self.folder, number)

    def _update_index(self) -> None:
        """Bring index.faiss up to date: add the new rows, or build it again."""
        if self.metadata["kind"] in EXACT:
            return
        total, index = len(self.stamps), self._read_index()
        if index is not None and index.ntotal == total:
            return
        if index is None or total > MAX_GROWTH * self.metadata["trained_on"]:
            index = build_index(self._blocks, total, self.parts[0].shape[1], self.metadata["kind"])
            self.metadata["trained_on"] = total
        else:
            for number in np.flatnonzero(np.cumsum([len(part) for part in self.parts]) > index.ntotal):
                index.add(l2_normalize(self.parts[number]))
        self.metadata["index_checksum"] = write_index(self.folder / INDEX, index)
        write_json(self.folder / "metadata.json", self.metadata)  # last: an index without its own is not used

    def _read_index(self) -> Any:
        """None: missing, damaged, or of other vectors."""
        index = read_index(self.folder / INDEX, self.metadata.get("index_checksum"), self.parts[0].shape[1])
        return index if index and index.ntotal <= len(self.stamps) else None

    def _open_index(self, search_params: str) -> Index:
        if self.metadata["kind"] in EXACT:
            if search_params:
                raise ValueError(f"--search_params {search_params}: {self.folder} is searched exactly; nothing to set")
            return ExactIndex(self._blocks)
        index = self._read_index()
        if index is None or index.ntotal != len(self.stamps):
            raise ValueError(f"{self.folder / INDEX}: damaged, or an update was stopped; run build_index.py again")
        set_search_params(index, search_params)
        return index

    def _blocks(self) -> Iterator[np.ndarray]:
        """Unit vectors of every row, of removed files too, as an index counts them."""
        return map(l2_normalize, self._checked())

    def _checked(self) -> Iterator[np.ndarray]:
        """The vectors of each shard, in the order of `stamps`."""
        for number, shard in self.shards.items():
            vectors = np.asarray(shard.vectors, np.float32)
            check_rows(vectors, self.folder / f"shard-{number:05}.npy", names=[str(image[0]) for image in shard.images])
            yield vectors


def check_kind(kind: str, images: int, extractor: Extractor) -> None:
    """ValueError for an index that cannot be made of so many vectors; none is encoded to know."""
    if kind not in EXACT:
        create_index(kind, images, extractor.width)


def index_folder(
    image_dir: str | Path, extractor: Extractor, cache_dir: str | Path | None = None, quiet: bool = False
) -> VectorStore:
    """The images of a folder, encoded as far as is needed.

    Vectors are kept in float32 in .image_index inside the folder, apart for each encoder; or in cache_dir, a folder of
    its own for each image folder. The image folder can be moved.
    """
    image_dir = Path(image_dir)
    if not image_dir.is_dir():
        raise FileNotFoundError(
            f"{image_dir}: {'a file' if image_dir.is_file() else 'no such folder'}; expected a folder of images"
        )
    cache = Path(cache_dir or image_dir / CACHE)
    folder = cache / f"{extractor.metadata['key']}-{extractor.metadata['image_size']}"
    if link := next((path for path in (cache, folder) if path.is_symlink() and not cache_dir), None):
        raise ValueError(f"{link}: is a link, and nothing is written where a link in a data folder leads; delete it")
    if not (folder / "metadata.json").is_file():
        VectorStore.create(folder, image_dir, extractor.metadata, dtype="float32")
    store = VectorStore(folder, image_dir, repair=True)
    store.update(extractor, quiet)
    return store
