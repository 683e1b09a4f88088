"""Files of image vectors: one .npz, or a folder of shards.

one file     features.npz    features (N, D) float32, image_paths (N,), digests (N,), metadata: JSON
many shards  folder/         metadata.json, shard-00000.npy (n, D) float16, shard-00000.json: images, skipped

A folder is read through memory maps, so millions of vectors are searched without being loaded. A shard's .json is
written last: if it exists, the shard is complete.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import TypedDict

from common.text.files import write_atomically, write_jsonl
from common.text.schema import read_checked
from common.vectors.feature_set import FeatureSet, as_vectors, map_array


class Shard(NamedTuple):
    vectors: np.ndarray  # (n, D)
    images: Sequence[Sequence[str]]  # of each row: path, digest
    skipped: dict[str, str]  # path -> reason


class ImageFile(NamedTuple):
    path: str
    digest: str


class ShardFile(TypedDict):
    """The .json of a shard."""

    images: list[ImageFile]  # of each row
    skipped: dict[str, str]  # path: reason


class Metadata(TypedDict, total=False):
    """How vectors were made: metadata.json, or `metadata` in an .npz."""

    image_dir: str
    images: int
    shards: int
    weights: str
    key: str
    pooling: str
    layer: int
    flip: bool
    tiles: int
    image_size: int


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    with write_atomically(folder / f"shard-{number:05}.npy") as file:
        np.save(file, np.ascontiguousarray(shard.vectors))
    write_jsonl(folder / f"shard-{number:05}.json", [{"images": shard.images, "skipped": shard.skipped}])  # one line


def shard_numbers(folder: Path) -> list[int]:
    """Complete shards, in order."""
    return sorted(int(path.stem[6:]) for path in folder.glob("shard-*.json") if re.fullmatch(r"\d{5,9}", path.stem[6:]))


def read_shard(folder: Path, number: int) -> Shard:
    path = folder / f"shard-{number:05}.npy"
    try:
        content = read_checked(path.with_suffix(".json"), ShardFile)
        vectors = map_array(path) if content["images"] else np.empty((0, 1), np.float16)
        intact = vectors.ndim == 2 and len(vectors) == len(content["images"])
    except (ValueError, FileNotFoundError):
        intact = False
    if not intact:
        raise ValueError(f"{path}: damaged, or not of the same write as its .json; delete both and start again")
    return Shard(as_vectors(vectors, path), content["images"], content["skipped"])


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


def read_folder(folder: Path) -> FeatureSet:
    """The vectors of extract_features.py; of an unfinished run, a ValueError."""
    metadata = read_checked(folder / "metadata.json", Metadata, "expected a folder written by extract_features.py")
    shards = {folder / f"shard-{number:05}.npy": read_shard(folder, number) for number in shard_numbers(folder)}
    if len(shards) < metadata.get("shards", 1):
        raise ValueError(
            f"{folder}: {len(shards)} of {metadata.get('shards', 1)} shards; run extract_features.py again to resume"
        )
    filled = {path: shard for path, shard in shards.items() if shard.images}
    return FeatureSet(
        [shard.vectors for shard in filled.values()],
        [path for shard in filled.values() for path, _ in shard.images],
        [digest for shard in filled.values() for _, digest in shard.images],
        dict(metadata),
        {path: reason for shard in shards.values() for path, reason in shard.skipped.items()},
        list(filled),
    )


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32 of length 1; a vector of zeros stays one."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
