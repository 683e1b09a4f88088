"""Where do vectors lie, and which image is each of?

one file     features.npz    features (N, D) float32, image_paths (N,), digests (N,), facts: JSON of what made them
many shards  folder/         facts.json, shard-00000.npy (n, D) float16, shard-00000.json: images and what was left out

A folder is read through memory maps, so millions of vectors are looked at without being loaded. A shard's .json is
written last: where it is, the shard is whole.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.text.files import write_atomically

BLOCK_ROWS = 65_536  # float32 vectors held at once by `blocks`


class Features:
    """Vectors of N images in order, read when they are asked for. images: [path, digest, ...] of each."""

    def __init__(self, parts: list[np.ndarray], images: list[list], facts: dict[str, Any], skipped: dict[str, str]):
        self.parts, self.images, self.facts, self.skipped = parts, images, facts, skipped
        self.ends = np.cumsum([len(part) for part in parts])

    @property
    def paths(self) -> list[str]:
        return [row[0] for row in self.images]

    @property
    def digests(self) -> list[str]:
        return [row[1] for row in self.images]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def width(self) -> int:
        return self.parts[0].shape[1] if self.parts else 0

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """-> (len(indices), D) float32"""
        indices = np.asarray(indices)
        found = np.empty((len(indices), self.width), np.float32)
        part_of = np.searchsorted(self.ends, indices, side="right")
        for number in np.unique(part_of):
            chosen = part_of == number
            start = self.ends[number] - len(self.parts[number])
            found[chosen] = self.parts[number][indices[chosen] - start]
        return found

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """All vectors in order, (up to `rows`, D) float32 at a time."""
        for start in range(0, len(self), rows):
            yield self.rows(np.arange(start, min(start + rows, len(self))))

    def all(self) -> np.ndarray:
        """-> (N, D) float32"""
        return self.rows(np.arange(len(self)))


class Shard(NamedTuple):
    vectors: np.ndarray  # (n, D)
    images: list[list]  # [path, digest] of each row, or more
    skipped: dict[str, str]  # path -> reason


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    with write_atomically(folder / f"shard-{number:05}.npy") as file:
        np.save(file, shard.vectors)
    said = {"images": shard.images, "skipped": shard.skipped}
    with write_atomically(folder / f"shard-{number:05}.json") as file:
        file.write(json.dumps(said, ensure_ascii=False).encode())


def shard_numbers(folder: Path) -> list[int]:
    """Shards that are whole, in order."""
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("shard-*.json"))


def read_shard(folder: Path, number: int) -> Shard:
    path = folder / f"shard-{number:05}.npy"
    said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    vectors = np.load(path, mmap_mode="r") if said["images"] else np.load(path)  # an empty file cannot be mapped
    if len(vectors) != len(said["images"]):
        raise ValueError(f"{path}: {len(vectors)} vectors for {len(said['images'])} images; extract them again")
    return Shard(vectors, said["images"], said["skipped"])


def write_npz(path: Path, features: Features) -> None:
    """The one-file form: what np.load opens with `features` and `image_paths`, and more."""
    with write_atomically(path) as file:
        np.savez(
            file,
            features=features.all(),
            image_paths=np.array(features.paths, dtype=np.str_),
            digests=np.array(features.digests, dtype=np.str_),
            facts=np.array(json.dumps(features.facts, ensure_ascii=False)),
        )


def read_features(path: str | Path) -> Features:
    """A folder of shards, or an .npz with `features` and `image_paths`, whoever wrote it."""
    path = Path(path)
    return read_folder(path) if path.is_dir() else _read_npz(path)


def read_folder(folder: Path) -> Features:
    facts = folder / "facts.json"
    if not facts.is_file():
        raise FileNotFoundError(f"{facts}: no such file; expected a folder that extract_features.py wrote")
    said = json.loads(facts.read_text(encoding="utf-8"))
    numbers, features = read_shards(folder, said)
    if len(numbers) < said.get("shards", 0):
        raise ValueError(
            f"{folder}: {len(numbers)} of {said['shards']} shards are there; run extract_features.py again to go on"
        )
    if not len(features):
        raise ValueError(f"{folder}: none of its images could be read")
    return features


def read_shards(folder: Path, facts: dict[str, Any] | None = None) -> tuple[list[int], Features]:
    """Every whole shard of a folder -> their numbers, their rows one after the other."""
    numbers = shard_numbers(folder)
    shards = [read_shard(folder, number) for number in numbers]
    images = [row for shard in shards for row in shard.images]
    skipped = {name: reason for shard in shards for name, reason in shard.skipped.items()}
    return numbers, Features([shard.vectors for shard in shards if shard.images], images, facts or {}, skipped)


def _read_npz(path: Path) -> Features:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder of features")
    try:
        with np.load(path) as file:
            content = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from None
    missing = {"features", "image_paths"} - set(content)
    if missing or content["features"].ndim != 2 or len(content["features"]) != len(content["image_paths"]):
        raise ValueError(f"{path}: expected features (N, D) and image_paths (N,), found {', '.join(content)}")
    if not len(content["features"]):
        raise ValueError(f"{path}: holds no vectors")
    digests = content.get("digests", [""] * len(content["features"]))
    images = [[str(path), str(digest)] for path, digest in zip(content["image_paths"], digests)]
    facts = json.loads(str(content["facts"])) if "facts" in content else {}
    return Features([content["features"]], images, facts, {})


def unit(vectors: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32 of length 1; a vector of zeros stays one."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
