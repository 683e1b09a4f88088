"""common.vectors.feature_files.read_features: random vectors in every layout, whole, with bad rows, or mutated."""

import json
from pathlib import Path
from random import Random
from shutil import rmtree

import numpy as np
import pyarrow
from pyarrow import parquet

from benchmarks.doors import mutated, refused
from common.vectors.feature_files import read_features
from common.vectors.shards import Shard, write_shard

DTYPES = (np.float16, np.float32, np.float64, ">f4", np.int8)
FOLDERS = ("a b", "图", "x/é", "line\u2028", "\t", "..")
REFUSED_DTYPES = (np.complex64, np.bool_, np.uint8, np.int64, object)


def trial(random: Random, folder: Path) -> str:
    place = folder / "features"
    rmtree(place, ignore_errors=True)
    place.mkdir()
    values = np.random.default_rng(random.getrandbits(32))
    count, width = random.randint(1, 9), random.randint(1, 6)
    vectors = values.uniform(1, 120, (count, width))
    fault, row = random.choice(["", "", "", "nan", "zero", "dtype", "bytes"]), random.randrange(count)
    dtype = random.choice(DTYPES)
    if fault == "nan":
        dtype = np.float32
        vectors[row, random.randrange(width)] = random.choice([np.nan, np.inf, -np.inf])
    elif fault == "zero":
        vectors[row] = 0
    elif fault == "dtype":
        dtype = random.choice(REFUSED_DTYPES)
    array = vectors.astype(dtype, order=random.choice("CF"))
    paths = [f"{random.choice(FOLDERS)}/{number}.png" for number in range(count)]
    path = random.choice([_npz, _npy, _clip_retrieval, _embedding_reader, _shards])(random, place, array, paths)
    if fault == "bytes":
        target = random.choice(sorted(file for file in place.rglob("*") if file.is_file()))
        target.write_bytes(mutated(random, target.read_bytes()))
    try:
        features = read_features(path)
        read = features.all()
    except ValueError as error:
        assert fault, f"good vectors refused: {error}"
        if fault in ("nan", "zero"):
            assert paths[row] in str(error), f"the row of {paths[row]!r} is not named: {error}"
        return refused(error, place)
    except FileNotFoundError as error:  # a name was part of what changed
        assert fault == "bytes"
        return refused(error, place)
    assert fault in ("", "bytes"), f"{fault} came through"
    if not fault:
        np.testing.assert_array_equal(read, array.astype(np.float32))
        assert features.paths == paths
    return "read"


def _npz(random: Random, place: Path, array: np.ndarray, paths: list[str]) -> Path:
    path = place / "a.npz"
    save = random.choice([np.savez, np.savez_compressed])
    save(path, features=array, image_paths=np.array(paths), labels=np.zeros(3))
    return path


def _npy(random: Random, place: Path, array: np.ndarray, paths: list[str]) -> Path:
    np.save(place / "a.npy", array)
    match random.randrange(3):
        case 0:
            (place / "a.txt").write_bytes("".join(f"{path}\n" for path in paths).encode())
        case 1:
            (place / "image_paths.json").write_text(json.dumps(paths))
        case _:
            np.save(place / "a_paths.npy", np.array(paths))
    return random.choice([place, place / "a.npy"]) if not (place / "a_paths.npy").exists() else place / "a.npy"


def _clip_retrieval(random: Random, place: Path, array: np.ndarray, paths: list[str]) -> Path:
    """Twelve parts at most: the order of their numbers is not that of their names."""
    (place / "img_emb").mkdir()
    (place / "metadata").mkdir()
    for number in range(len(array)):
        np.save(place / "img_emb" / f"img_emb_{number + 5}.npy", array[number : number + 1])
        _write_table(place / "metadata" / f"metadata_{number + 5}.parquet", "image_path", paths[number : number + 1])
    return random.choice([place, place / "img_emb"])


def _embedding_reader(random: Random, place: Path, array: np.ndarray, paths: list[str]) -> Path:
    half = len(array) // 2
    for number, part in enumerate([slice(0, half), slice(half, None)] if half else [slice(None)]):
        np.save(place / f"{number}.npy", array[part])
        _write_table(place / f"{number}.parquet", random.choice(["path", "url", "key"]), paths[part])
    return place


def _shards(random: Random, place: Path, array: np.ndarray, paths: list[str]) -> Path:
    (place / "metadata.json").write_text(json.dumps({"shards": 1, "image_dir": "."}))
    if array.dtype == object:  # which has no bytes to write
        return _npz(random, place, array, paths)
    write_shard(place, 0, Shard(np.ascontiguousarray(array), [[path, ""] for path in paths], {}))
    return place


def _write_table(path: Path, column: str, values: list[str]) -> None:
    parquet.write_table(pyarrow.table({column: values, "other": list(range(len(values)))}), path)
