"""A folder of images that can be searched, and kept up to date as images come and go.

image folder -> what is new since the last time -> shards of vectors -> exact search, or a FAISS index beside them
queries (Q, D) -> cosines (Q, k), paths

index folder:  facts.json  shard-*.npy, shard-*.json (vectors, and [name, digest, size, time] of their files)
               removed.json (files that are gone)  index.faiss, index.json (an approximate index, and its shards)

Shards are only added. A deleted file is named in removed.json and passed over; once too many are, the shards are
written anew. A call that is stopped loses at most the shard it was at.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.images.io import list_images
from common.text.files import write_atomically, write_json
from common.vectors.extractor import ENCODING_OPTIONS, Extractor
from common.vectors.faiss_index import ExactIndex, build_index, set_search
from common.vectors.faiss_library import load_faiss
from common.vectors.image_index import Stamp, stamp_of
from common.vectors.shards import Shard, read_shards, shard_numbers, unit, write_shard

SHARD_SIZE = 8192
MOST_REMOVED = 0.3  # share of rows that may be gone before the shards are written anew
MOST_SHARDS = 200
GROWTH = 4  # an index is built anew once it would hold so many times the vectors that its clusters were found with


class VectorStore:
    """`len` and `search` speak of the files that are there; `facts` say what made the vectors."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "facts.json").is_file():
            raise FileNotFoundError(f"{folder}: no index in it; make one with build_index.py --image_dir DIR")
        self.facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))
        self.image_dir = Path(self.facts["image_dir"])
        self.skipped: dict[str, str] = {}
        self._load()

    @classmethod
    def create(cls, folder: str | Path, image_dir: str | Path, kind: str, facts: dict[str, Any]) -> "VectorStore":
        """An empty one. kind: a name of common.vectors.faiss_index, or a FAISS factory string."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / "facts.json", {"image_dir": str(Path(image_dir).resolve()), "kind": kind, **facts})
        return cls(folder)

    def __len__(self) -> int:
        return int(self.live.sum())

    def update(self, extractor: Extractor) -> dict[str, int]:
        """Encode what is new or changed, forget what is gone -> how many of each; `skipped` names what is broken."""
        other = next((name for name in ("key", *ENCODING_OPTIONS) if extractor.facts[name] != self.facts[name]), None)
        if other:
            raise ValueError(f"{self.folder}: its vectors are of other weights or settings ({other}); make a new index")
        wanted = {stamp_of(path, self.image_dir): path for path in list_images(self.image_dir)}
        before, known = {stamp for stamp, live in zip(self.stamps, self.live) if live}, set(self.stamps)
        self._add({path: stamp for stamp, path in wanted.items() if stamp not in known}, extractor)
        write_json(self.folder / "removed.json", sorted(known - set(wanted)))
        self._load()
        if not len(self):
            raise ValueError(f"{self.image_dir}: none of its images can be read")
        if len(self) < (1 - MOST_REMOVED) * len(self.live) or len(self.shards) > MOST_SHARDS:
            self._write_anew()
        self._update_index()
        after = {stamp for stamp, live in zip(self.stamps, self.live) if live}
        return {"added": len(after - before), "removed": len(before - after), "images": len(self)}

    def search(self, queries: np.ndarray, k: int, search: str = "") -> tuple[list[list[float]], list[list[Path]]]:
        """Unit vectors (Q, D) -> cosines, highest first, and images: Q lists of k, shorter where it found fewer.

        search: parameters of an approximate index, such as 'nprobe=64'.
        """
        if not len(self):
            raise ValueError(f"{self.folder}: holds no image yet; call build_index.py again")
        queries, k = np.asarray(queries, np.float32), min(k, len(self))
        if queries.ndim != 2 or queries.shape[1] != self.vectors.width:
            raise ValueError(f"queries {queries.shape}: the index holds vectors of width {self.vectors.width}")
        index = self._open_index(search)
        asked = k
        while True:
            scores, places = index.search(queries, asked)
            live = self.live[places] & (places >= 0)
            if asked >= len(self.live) or (live.sum(1) >= k).all():
                break
            asked = min(2 * asked + 16, len(self.live))  # files that are gone took places of those that are there
        kept = [np.flatnonzero(row)[:k] for row in live]
        return (
            [score[keep].tolist() for score, keep in zip(scores, kept)],
            [[self.image_dir / self.stamps[at].name for at in row[keep]] for row, keep in zip(places, kept)],
        )

    def _load(self) -> None:
        self.shards, self.vectors = read_shards(self.folder)
        self.stamps = [Stamp(name, *rest) for name, _, *rest in self.vectors.images]
        file = self.folder / "removed.json"
        removed = {Stamp(*row) for row in json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else set()
        last = {one.name: row for row, one in enumerate(self.stamps)}  # a file that is there twice counts once
        live = [last[one.name] == row and one not in removed for row, one in enumerate(self.stamps)]
        self.live = np.array(live, bool)

    def _add(self, new: dict[Path, Stamp], extractor: Extractor) -> None:
        first = max(shard_numbers(self.folder), default=-1) + 1
        stamps = {str(path): stamp for path, stamp in new.items()}
        for number, shard in extractor.shards(list(new), range(-(-len(new) // SHARD_SIZE)), SHARD_SIZE, "float16"):
            self.skipped |= shard.skipped
            images = [[stamps[path].name, digest, *stamps[path][1:]] for path, digest in shard.images]
            if images:
                write_shard(self.folder, first + number, Shard(shard.vectors, images, {}))

    def _write_anew(self) -> None:
        """Live rows into new shards, then the old ones away; a stop in between leaves files twice, which is no harm."""
        rows, start = np.flatnonzero(self.live), max(self.shards) + 1
        for at in range(0, len(rows), SHARD_SIZE):
            chosen = rows[at : at + SHARD_SIZE]
            shard = Shard(
                self.vectors.rows(chosen).astype(np.float16), [self.vectors.images[row] for row in chosen], {}
            )
            write_shard(self.folder, start + at // SHARD_SIZE, shard)
        for number in self.shards:
            (self.folder / f"shard-{number:05}.json").unlink()
            (self.folder / f"shard-{number:05}.npy").unlink()
        self._load()

    def _update_index(self) -> None:
        """Bring index.faiss to the shards that are there: add the new ones, or build it anew."""
        if self.facts["kind"] in ("flat", "exact"):
            return
        covered = self._covered()
        shards = [[number, len(part)] for number, part in zip(self.shards, self.vectors.parts)]
        total, trained = len(self.live), covered["trained"]
        if covered["shards"] == shards:
            return
        if covered["shards"] and covered["shards"] == shards[: len(covered["shards"])] and total <= GROWTH * trained:
            index = load_faiss().read_index(str(self.folder / "index.faiss"))
            for part in self.vectors.parts[len(covered["shards"]) :]:
                index.add(unit(part))
        else:
            trained = total
            index = build_index(self._blocks, total, self.vectors.width, self.facts["kind"])
        with write_atomically(self.folder / "index.faiss") as file:
            load_faiss().write_index(index, load_faiss().PyCallbackIOWriter(file.write))
        write_json(self.folder / "index.json", {"shards": shards, "trained": trained})

    def _open_index(self, search: str):
        if self.facts["kind"] in ("flat", "exact"):
            if search:
                raise ValueError(f"--search {search}: {self.folder} compares with every image; it has nothing to set")
            return ExactIndex(self._blocks)
        if self._covered()["shards"] != [[number, len(part)] for number, part in zip(self.shards, self.vectors.parts)]:
            raise ValueError(f"{self.folder}: an update was stopped before its end; call build_index.py again")
        index = load_faiss().read_index(str(self.folder / "index.faiss"))
        set_search(index, search)
        return index

    def _covered(self) -> dict[str, Any]:
        """Which shards the approximate index holds, and how many vectors its clusters were found with."""
        file = self.folder / "index.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"shards": [], "trained": 0}

    def _blocks(self):
        """Vectors of every row, of removed files too, as an index counts them."""
        return (unit(part) for part in self.vectors.parts)
