"""Engines of a vector store compared, with FAISS alone in the same run.

    python benchmarks/vector_engines.py [--vectors 100000 --dimensions 512] [--engines "folder flat" "milvus hnsw"]

clustered unit vectors -> build, search, update, delete -> a markdown table; JSON in the last line

A store holds what FAISS alone does not: the state of each file, in transactions. Updates and deletions include making
them durable; FAISS alone rewrites its file. Searches are of one query and of a hundred at once, the ten nearest.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from milvus_lite.server_manager import server_manager_instance

from common.cli.errors import run_script
from common.vectors.faiss_index import index_factory, load_faiss
from common.vectors.filters import Filter
from common.vectors.records import Stamp
from common.vectors.shards import l2_normalize
from common.vectors.vector_store import VectorStore

MADE = {"weights": "none", "key": "0", "pooling": "mean", "layer": -1, "flip": False, "tiles": 1, "image_size": 32}
NEAREST, CHANGED, FOLDERS = 10, 1000, 50
COLUMNS = ["build_s", "mb", "recall", "qps_1", "qps_100", "filtered_qps", "filtered_recall", "update_s", "delete_s"]
ENGINES = ["faiss flat", "faiss hnsw", "folder flat", "folder hnsw", "milvus flat", "milvus hnsw"]


class Store:
    """A vector store of ours."""

    def __init__(self, place: str, kind: str, vectors: np.ndarray):
        self.store = VectorStore.create(place, "/images", MADE, vectors.shape[1], kind)
        self.add(0, vectors)
        self.store = VectorStore(place)

    def add(self, first: int, vectors: np.ndarray) -> None:
        self.store.add((Stamp(name_of(row), 1, row), vector) for row, vector in enumerate(vectors, first))

    def remove(self, rows: range) -> None:
        self.store.engine.remove([name_of(row) for row in rows])
        self.store.engine.finish()

    def search(self, queries: np.ndarray, folder: str = "") -> list[list[int]]:
        found = self.store.search(queries, NEAREST, filter=Filter(folder=folder))[1]
        return [[int(path.stem) for path in paths] for paths in found]


class Faiss:
    """FAISS alone: an index with ids, and its file."""

    def __init__(self, place: str, kind: str, vectors: np.ndarray):
        self.faiss, self.path = load_faiss(), place
        Path(place).parent.mkdir(exist_ok=True)
        factory, params = index_factory(kind, *vectors.shape)
        self.base = self.faiss.index_factory(vectors.shape[1], factory, self.faiss.METRIC_INNER_PRODUCT)
        if params:
            self.faiss.ParameterSpace().set_index_parameters(self.base, params)
        self.index = self.faiss.IndexIDMap(self.base)
        self.add(0, vectors)

    def add(self, first: int, vectors: np.ndarray) -> None:
        self.index.add_with_ids(vectors, np.arange(first, first + len(vectors)))
        self.faiss.write_index(self.index, self.path)

    def remove(self, rows: range) -> None:
        self.index.remove_ids(np.array(rows))  # RuntimeError of a graph
        self.faiss.write_index(self.index, self.path)

    def search(self, queries: np.ndarray, folder: str = "") -> list[list[int]]:
        if not folder:
            return self.index.search(queries, NEAREST)[1].tolist()
        selector = self.faiss.IDSelectorBatch(np.arange(int(folder), self.index.ntotal, FOLDERS))
        is_graph = isinstance(self.base, self.faiss.IndexHNSW)
        params = (self.faiss.SearchParametersHNSW if is_graph else self.faiss.SearchParameters)(sel=selector)
        return self.index.search(queries, NEAREST, params=params)[1].tolist()


def name_of(row: int) -> str:
    return f"{row % FOLDERS}/{row}.jpg"


def clustered(count: int, dimensions: int, seed: int) -> np.ndarray:
    """-> (count, D) unit vectors around a thousand centres"""
    centres = np.random.default_rng(0).standard_normal((1000, dimensions)).astype(np.float32)
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, dimensions), dtype=np.float32)
    return l2_normalize(centres[random.integers(0, 1000, count)] + noise)


def measure(engine: str, folder: Path, vectors: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    name, kind = engine.split()
    place = {"faiss": "a/index.faiss", "folder": "a", "milvus": "a/images.db"}[name]
    start = time.perf_counter()
    index: Any = (Faiss if name == "faiss" else Store)(str(folder / place), kind, vectors)
    row: dict[str, Any] = {"engine": engine, "build_s": time.perf_counter() - start}
    row["mb"] = sum(file.stat().st_size for file in (folder / "a").rglob("*") if file.is_file()) / 1e6
    row["recall"] = recall(index.search(queries), truth(queries, vectors, 1))
    row["qps_1"] = rate(lambda: [index.search(query[None]) for query in queries[:10]], 10)
    row["qps_100"] = rate(lambda: index.search(queries), len(queries))
    row["filtered_qps"] = rate(lambda: index.search(queries, "7"), len(queries))
    row["filtered_recall"] = recall(index.search(queries, "7"), truth(queries, vectors, FOLDERS, 7))
    row["update_s"] = seconds(lambda: index.add(len(vectors), clustered(CHANGED, vectors.shape[1], 3)))
    try:
        row["delete_s"] = seconds(lambda: index.remove(range(CHANGED)))
    except RuntimeError:
        row["delete_s"] = None
    return row


def truth(queries: np.ndarray, vectors: np.ndarray, step: int, first: int = 0) -> list[list[int]]:
    """The nearest of every `step`-th vector."""
    cosines = queries @ vectors[first::step].T
    return (np.argsort(-cosines, 1)[:, :NEAREST] * step + first).tolist()


def recall(found: list[list[int]], true: list[list[int]]) -> float:
    return float(np.mean([len({*row} & {*right}) / NEAREST for row, right in zip(found, true)]))


def rate(search: Callable[[], Any], queries: int) -> float:
    """Queries a second, for two seconds at least; the first call is not counted."""
    search()
    rounds, start = 0, time.perf_counter()
    while not rounds or time.perf_counter() - start < 2:
        search()
        rounds += 1
    return rounds * queries / (time.perf_counter() - start)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(argv: list[str]) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--scratch", help="folder for temporary files")
    args = parser.parse_args(argv)
    vectors, queries = (clustered(count, args.dimensions, seed) for count, seed in ((args.vectors, 1), (100, 2)))
    rows = []
    print("| engine |", " | ".join(COLUMNS), "|\n" + "|---" * (1 + len(COLUMNS)) + "|")
    for engine in args.engines:
        folder = Path(tempfile.mkdtemp(dir=args.scratch))
        rows.append(measure(engine, folder, vectors, queries))
        values = ["-" if rows[-1][name] is None else f"{rows[-1][name]:.4g}" for name in COLUMNS]
        print(f"| {engine} |", " | ".join(values), "|", flush=True)
        for place in folder.glob("*.db"):  # milvus-lite would wait for it when the process ends
            server_manager_instance.release_server(str(place))
        shutil.rmtree(folder)
    print(json.dumps(rows))
    return rows


if __name__ == "__main__":
    run_script(main)
