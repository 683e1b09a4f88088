"""common.vectors.faiss_index: random kinds for random numbers of vectors, refused before there are any, or searchable;
and index files with a few bytes changed."""

from pathlib import Path
from random import Random

import numpy as np

from benchmarks.doors import mutated, refused
from common.vectors.faiss_index import INDEXES, build_index, create_index, read_index, write_index
from common.vectors.shards import l2_normalize

WIDTH = 8
COARSE = ("", "IVF{n}", "IVF{n}_HNSW4", "PCA{d},IVF{n}", "OPQ{m},IVF{n}", "PCAR{d}", "L2norm,IVF{n}")
CODES = ("Flat", "SQ8", "SQfp16", "PQ{m}x{b}", "PQ{m}x4fs", "RQ{m}x{b}", "RaBitQ")
WHOLE = (*INDEXES, "HNSW8", "HNSW4,SQ8", "NSG8,Flat", "IDMap,Flat", "tree", "IVF", "", "IVF99999999999,Flat", "PQ4x99")


def trial(random: Random, folder: Path) -> str:
    count = random.choice([1, 2, 3, 5, 15, 16, 17, 40, 110, 200])
    name = random.choice(WHOLE)
    if random.random() < 0.7:
        numbers = {"n": random.choice([1, 4, 16, 50]), "d": random.choice([2, 4, 9]), "m": random.choice([1, 2, 3, 4])}
        parts = (random.choice(COARSE), random.choice(CODES))
        name = ",".join(filter(None, parts)).format(**numbers, b=random.choice([1, 2, 4, 5]))
    try:
        if name != "exact":
            create_index(name, count, WIDTH)
    except ValueError as error:
        return refused(error, f"index '{name}'")
    vectors = l2_normalize(np.random.default_rng(random.getrandbits(32)).standard_normal((count, WIDTH)))
    index = build_index(lambda: iter([vectors]), count, WIDTH, name)
    scores, rows = index.search(vectors[:2], 3)
    assert rows.shape == scores.shape == (min(2, count), min(3, count) if name == "exact" else 3)
    assert rows.max() < count and (rows[:, 0] >= 0).any()
    if name == "exact":
        return "read"
    path = folder / "index.faiss"
    checksum = write_index(path, index)
    assert read_index(path, checksum, WIDTH).ntotal == count and read_index(path, checksum, WIDTH + 1) is None
    damaged = mutated(random, whole := path.read_bytes())
    path.write_bytes(damaged)
    assert damaged == whole or read_index(path, checksum, WIDTH) is None
    path.unlink()
    return "read"
