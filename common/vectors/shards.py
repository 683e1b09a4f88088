"""Files of image vectors: one .npz, or a folder of shards.

one file     features.npz    features (N, D) float32, image_paths (N,), digests (N,), metadata: JSON
many shards  folder/         metadata.json, shard-00000.npy (n, D) float16, shard-00000.json: images, skipped, checksum

A folder is read through memory maps, so millions of vectors are searched without being loaded. A shard's .json is
written last: if it exists, the shard is complete.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.text.files import read_json, write_atomically, write_jsonl

BLOCK_ROWS = 65_536  # float32 vectors held at once by `blocks`


class Shard(NamedTuple):
    vectors: np.ndarray  # (n, D)
    images: list[list]  # of each row: path, digest, or what else its writer records
    skipped: dict[str, str]  # path -> reason


@dataclass
class FeatureSet:
    """Vectors of N images in order, read on demand."""

    parts: list[np.ndarray]  # each (n, D)
    paths: list[str]
    digests: list[str]  # of the files' bytes; '' = unknown
    metadata: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def width(self) -> int:
        return self.parts[0].shape[1]

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[np.ndarray]:
        """All vectors in order, (up to `rows`, D) float32 at a time."""
        for part in self.parts:
            for start in range(0, len(part), rows):
                yield np.asarray(part[start : start + rows], np.float32)

    def all(self) -> np.ndarray:
        """-> (N, D) float32"""
        return np.concatenate(list(self.blocks()))


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    vectors = np.ascontiguousarray(shard.vectors)
    with write_atomically(folder / f"shard-{number:05}.npy") as file:
        np.save(file, vectors)
    content = {"images": shard.images, "skipped": shard.skipped, "checksum": zlib.crc32(vectors.data)}
    write_jsonl(folder / f"shard-{number:05}.json", [content])  # one line


def shard_numbers(folder: Path) -> list[int]:
    """Complete shards, in order."""
    return sorted(int(path.stem.partition("-")[2]) for path in folder.glob("shard-*.json"))


def read_shard(folder: Path, number: int, verify: bool = False) -> Shard:
    """verify: compare the checksum too, which reads every vector."""
    path = folder / f"shard-{number:05}.npy"
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        vectors = np.load(path, mmap_mode="r" if content["images"] else None)  # an empty array cannot be mapped
        intact = len(vectors) == len(content["images"]) and (
            not verify or zlib.crc32(vectors.data) == content["checksum"]
        )
    except (ValueError, EOFError, FileNotFoundError):
        intact = False
    if not intact:
        raise ValueError(f"{path}: damaged, or not of the same write as its .json; delete both and start again")
    return Shard(vectors, content["images"], content["skipped"])


def remove_shard(folder: Path, number: int) -> None:
    for suffix in ("json", "npy"):
        (folder / f"shard-{number:05}.{suffix}").unlink(missing_ok=True)


def write_npz(path: Path, features: FeatureSet) -> None:
    """One file, for np.load: `features`, `image_paths`, and more."""
    with write_atomically(path) as file:
        np.savez(
            file,
            features=features.all(),
            image_paths=np.array(features.paths, dtype=np.str_),
            digests=np.array(features.digests, dtype=np.str_),
            metadata=np.array(json.dumps(features.metadata, ensure_ascii=False)),
        )


def read_features(path: str | Path) -> FeatureSet:
    """A folder of shards, or an .npz with `features` and `image_paths` of any origin."""
    path = Path(path)
    features = read_folder(path) if path.is_dir() else _read_npz(path)
    if not len(features):
        raise ValueError(f"{path}: holds no vectors; none of its images could be read")
    return features


def read_folder(folder: Path) -> FeatureSet:
    metadata = read_json(folder / "metadata.json", "expected a folder written by extract_features.py")
    shards = [read_shard(folder, number) for number in shard_numbers(folder)]
    if len(shards) < metadata["shards"]:
        raise ValueError(
            f"{folder}: {len(shards)} of {metadata['shards']} shards; run extract_features.py again to resume"
        )
    return FeatureSet(
        [shard.vectors for shard in shards if shard.images],
        [path for shard in shards for path, _ in shard.images],
        [digest for shard in shards for _, digest in shard.images],
        metadata,
        {path: reason for shard in shards for path, reason in shard.skipped.items()},
    )


def _read_npz(path: Path) -> FeatureSet:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder of features")
    try:
        with np.load(path) as file:
            content = dict(file)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from None
    vectors, paths = content.get("features"), content.get("image_paths")
    if vectors is None or paths is None or vectors.ndim != 2 or len(vectors) != len(paths):
        raise ValueError(f"{path}: expected features (N, D) and image_paths (N,), found {', '.join(content)}")
    return FeatureSet(
        [vectors],
        paths=list(map(str, paths)),
        digests=list(map(str, content.get("digests", [""] * len(paths)))),
        metadata=json.loads(str(content.get("metadata", "{}"))),
    )


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32 of length 1; a vector of zeros stays one."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
