"""Vectors of a folder of images, updated as images come and go, and searched.

image folder -> images that are new or changed -> vectors -> engine
queries (Q, D), filter -> cosines (Q, k), paths

A place names the engine: a folder for FAISS (faiss_folder.py); FILE.db, http://HOST:PORT or https://... for Milvus
(milvus_collection.py). A killed update loses SAVE_SECONDS of work at most, an interrupted one nothing.
"""

import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.images.folders import list_images
from common.vectors.engine import Engine
from common.vectors.extractor import Extractor, difference
from common.vectors.faiss_folder import FaissFolder
from common.vectors.faiss_index import EXACT, create_index
from common.vectors.filters import Filter
from common.vectors.image_table import ImageTable
from common.vectors.milvus_collection import MilvusCollection, check_milvus_kind
from common.vectors.records import Stamp, StoreMetadata, is_milvus, shown_place
from common.vectors.shares import Plan, encode_share, save_rows

CACHE = ".image_index"  # hidden, so that list_images skips it
EVERYTHING = Filter()


class VectorStore:
    """`skipped`: unreadable files of the last update; `metadata`: how vectors are made.

    image_dir: where the images are now, if they have moved. repair: discard damaged rows.
    """

    def __init__(self, place: str | Path, image_dir: str | Path | None = None, repair: bool = False):
        self.place = str(place)
        self.engine: Engine = (
            MilvusCollection(self.place) if is_milvus(self.place) else FaissFolder(Path(place), repair)
        )
        self.image_dir = Path(image_dir or self.engine.metadata["image_dir"])
        self.skipped: dict[Path, str] = {}

    @classmethod
    def create(
        cls,
        place: str | Path,
        image_dir: str | Path,
        metadata: dict[str, Any],
        width: int,
        kind: str = "flat",
        dtype: str = "float16",
    ) -> "VectorStore":
        """An empty one of vectors (D,). metadata: an extractor's. kind: a name of faiss_index, or a FAISS factory
        string; of Milvus, one of its KINDS. dtype: of the vectors in a folder."""
        origin = {"image_dir": str(Path(image_dir).resolve()), "kind": kind, "dtype": dtype, "trained_on": 0}
        content = cast(StoreMetadata, origin | metadata | {"width": width})
        if is_milvus(str(place)):
            MilvusCollection(str(place), content)
        else:
            FaissFolder.create(Path(place), content)
        return cls(place)

    @property
    def metadata(self) -> StoreMetadata:
        return self.engine.metadata

    def __len__(self) -> int:
        return len(self.engine)

    @property
    def paths(self) -> list[Path]:
        return [self.image_dir / stamp.name for stamp in sorted(self.engine.stamps(), key=_order)]

    def blocks(self) -> Iterator[tuple[list[Path], np.ndarray]]:
        """Paths and vectors (n, D) float32 of n images at a time, in no order."""
        for stamps, vectors in self.engine.rows():
            yield [self.image_dir / stamp.name for stamp in stamps], vectors

    def vectors(self) -> np.ndarray:
        """(N, D) float32 in the order of `paths`"""
        stamps, blocks = zip(*self.engine.rows())
        names = list(chain.from_iterable(stamps))
        return np.concatenate(blocks)[sorted(range(len(names)), key=lambda row: _order(names[row]))]

    def update(self, extractor: Extractor, quiet: bool = False) -> dict[str, int]:
        """Encode new and changed images, drop those that are gone -> counts of added, removed and all images.

        Of several processes that torchrun started, process 0 calls this, and the others encode_share.
        """
        if differing := difference(dict(self.metadata), extractor.metadata):
            raise ValueError(f"{shown_place(self.place)}: was built with {differing}; make a new index")
        self._take_parts()
        before = len(self)
        unlisted: dict[str, str] = {}
        images = list_images(self.image_dir, unlisted)
        current = {stamp.name: stamp for stamp in (Stamp.of(path, self.image_dir) for path in images)}
        check_kind(self.place, self.metadata["kind"], len(current), self.metadata["width"])
        known = {stamp.name: stamp for stamp in self.engine.stamps()}
        stale = [name for name, stamp in known.items() if current.get(name) != stamp]
        self.engine.remove(stale)
        new = [stamp for name, stamp in current.items() if known.get(name) != stamp]
        plan = Plan(self.place, self.image_dir, self.metadata, self.engine.parts, new)
        skipped = unlisted | encode_share(plan, extractor, self.engine, quiet)
        self.skipped = {Path(name): reason for name, reason in skipped.items()}
        self._take_parts()
        if not len(self):
            raise ValueError(
                f"{self.image_dir}: none of its {len(current)} images can be read; {next(iter(skipped.values()))}"
            )
        self.engine.finish()
        return {"added": len(self) - before + len(stale), "removed": len(stale), "images": len(self)}

    def add(self, rows: Iterable[tuple[Stamp, np.ndarray]]) -> None:
        """Vectors (D,) made elsewhere, by the same weights and options."""
        save_rows(rows, self.engine.add)
        self.engine.finish()

    def search(
        self, queries: np.ndarray, k: int, search_params: str = "", filter: Filter = EVERYTHING
    ) -> tuple[list[list[float]], list[list[Path]]]:
        """Unit vectors (Q, D) -> cosines, highest first, and images: Q lists of k, shorter if fewer match.

        search_params: of an approximate index, such as 'nprobe=64'.
        """
        if not (count := len(self)):
            raise ValueError(f"{shown_place(self.place)}: holds no image yet; run build_index.py again")
        queries, width = np.ascontiguousarray(queries, np.float32), self.metadata["width"]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries {queries.shape}: the index holds vectors of width {width}")
        conditions = filter.conditions(self.image_dir)
        found = self.engine.search(queries, min(k, count), conditions, search_params)
        return (
            [[score for score, _ in matches] for matches in found],
            [[self.image_dir / name for _, name in matches] for matches in found],
        )

    def _take_parts(self) -> None:
        """Add what torchrun's processes have encoded, in this update or in one that was killed."""
        for file in sorted(self.engine.parts.glob("part-*.sqlite")) if self.engine.parts else ():
            part = ImageTable(file, self.metadata["width"], self.metadata["dtype"])
            part.repair()
            for _, stamps, vectors in part.rows(part.ids()):
                self.engine.add(stamps, vectors)
            file.unlink()


def _order(stamp: Stamp) -> list[str]:
    """As list_images sorts."""
    return stamp.name.split("/")


def check_kind(place: str | Path, kind: str, images: int, width: int) -> None:
    """ValueError for an index that cannot be made of so many vectors; none is encoded to know."""
    if is_milvus(str(place)):
        check_milvus_kind(kind)
    elif kind not in EXACT:
        create_index(kind, images, width)


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
    if not all((folder / name).is_file() for name in ("metadata.json", "images.sqlite")):
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier version, or half made
        VectorStore.create(folder, image_dir, extractor.metadata, extractor.width, dtype="float32")
    store = VectorStore(folder, image_dir, repair=True)
    store.update(extractor, quiet)
    return store
