"""Files of image vectors: one .npz, or a folder of shards.

one file     features.npz    features (N, D) float32, image_paths (N,), digests (N,), metadata: JSON
many shards  folder/         metadata.json, shard-00000.npy (n, D) float16, shard-00000.json: images, skipped, checksum

A folder is read through memory maps, so millions of vectors are searched without being loaded. A shard's .json is
written last: if it exists, the shard is complete.
"""

import json
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import TypedDict

from common.text.files import write_atomically, write_jsonl
from common.text.schema import read_checked
from common.vectors.feature_set import FeatureSet, as_vectors, map_array


class Shard(NamedTuple):
    vectors: np.ndarray  # (n, D)
    images: list[list]  # of each row: path, digest, or what else its writer records
    skipped: dict[str, str]  # path -> reason


class ImageFile(NamedTuple):
    """What a shard of extract_features.py records of a row."""

    path: str
    digest: str


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
    vectors = np.ascontiguousarray(shard.vectors)
    with write_atomically(folder / f"shard-{number:05}.npy") as file:
        np.save(file, vectors)
    content = {"images": shard.images, "skipped": shard.skipped, "checksum": zlib.crc32(vectors.data)}
    write_jsonl(folder / f"shard-{number:05}.json", [content])  # one line


def shard_numbers(folder: Path) -> list[int]:
    """Complete shards, in order."""
    return sorted(int(path.stem[6:]) for path in folder.glob("shard-*.json") if re.fullmatch(r"\d{5,9}", path.stem[6:]))


def read_shard(folder: Path, number: int, row: type = ImageFile, verify: bool = False) -> Shard:
    """row: the NamedTuple that the writer records for each vector. verify: compare the checksum too, which reads every
    vector."""
    path = folder / f"shard-{number:05}.npy"
    try:
        content: Any = read_checked(path.with_suffix(".json"), _schema(row))
        vectors = map_array(path) if content["images"] else np.empty((0, 1), np.float16)
        intact = vectors.ndim == 2 and len(vectors) == len(content["images"]) and vectors.flags.c_contiguous
        intact = intact and not (verify and content["images"] and zlib.crc32(vectors.data) != content["checksum"])
    except (ValueError, FileNotFoundError):
        intact = False
    if not intact:
        raise ValueError(f"{path}: damaged, or not of the same write as its .json; delete both and start again")
    return Shard(as_vectors(vectors, path), content["images"], content["skipped"])


@cache
def _schema(row: type) -> Any:
    """The .json of a shard."""
    return TypedDict("ShardFile", {"images": list[row], "skipped": dict[str, str], "checksum": int})  # type: ignore


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
