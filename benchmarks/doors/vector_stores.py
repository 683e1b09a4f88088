"""common.vectors.vector_store in a folder: a file of a store with a few bytes changed, cut off or taken from another
store. It is refused in one line, or what is found is what the intact store finds; an update makes all of it again."""

import shutil
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.doors import mutated, refused
from common.vectors.records import Stamp
from common.vectors.shards import l2_normalize
from common.vectors.vector_store import VectorStore

MADE = {"weights": "w", "key": "k", "pooling": "mean", "layer": -1, "flip": False, "tiles": 1, "image_size": 32}
WIDTH = 8
KINDS = ("flat", "hnsw", "ivf", "SQ8", "PCA4,Flat")


def trial(random: Random, folder: Path) -> str:
    place, seed = folder / "index", random.getrandbits(32)
    shutil.rmtree(place, ignore_errors=True)
    kind = random.choice(KINDS)
    store = make(place, kind, seed)
    queries = l2_normalize(np.random.default_rng(seed).standard_normal((2, WIDTH)))
    intact = store.search(queries, 5)[1]
    file = random.choice(sorted(place.iterdir()))
    data = file.read_bytes()
    match random.choice(["bytes", "cut", "gone", "other"]):
        case "bytes":
            file.write_bytes(mutated(random, data))
        case "cut":
            file.write_bytes(data[: random.randrange(len(data))])
        case "gone":
            file.unlink()
        case "other":
            make(folder / "other", kind, seed + 1)
            shutil.copy(folder / "other" / file.name, file)
            shutil.rmtree(folder / "other")
    try:
        with redirect_stderr(StringIO()):
            found = VectorStore(place).search(queries, 5)[1]
    except (ValueError, FileNotFoundError) as error:
        return refused(error, place)
    if file.name == "index.faiss" and kind in ("flat", "hnsw"):
        assert found == intact, "other images are found by the same table"
    return "read"


def make(place: Path, kind: str, seed: int) -> VectorStore:
    vectors = l2_normalize(np.random.default_rng(seed).standard_normal((30, WIDTH)))
    store = VectorStore.create(place, place.parent, MADE, WIDTH, kind)
    store.add((Stamp(f"{seed % 2}/{row}.png", 1, 1), vector) for row, vector in enumerate(vectors))
    return VectorStore(place)
