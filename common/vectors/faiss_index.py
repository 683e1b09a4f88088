"""Nearest-neighbour indexes over unit vectors, exact and approximate.

vectors in blocks (n, D) -> index -> queries (Q, D) -> cosines (Q, k), highest first, and their rows (Q, k)

exact    torch, block by block: on any device, no more in memory than the vectors themselves
flat     FAISS, exact too                       ivf    searches the nearest of many clusters
hnsw     a graph of neighbours                  ivfpq  clusters, and a byte for eight dimensions
Any other name is taken as a FAISS factory string, such as IVF4096,SQfp16.
"""

import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

INDEXES = ("exact", "flat", "ivf", "hnsw", "ivfpq")
TRAINING_ROWS = 40  # vectors per cluster that clustering is trained on; FAISS warns below 39
GPU_LIMIT = 2048  # the most neighbours that FAISS's GPU kernels return
QUERY_ROWS = 1024
BlockReader = Callable[[], Iterator[np.ndarray]]


class Index(Protocol):
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (Q, D) float32 -> cosines (Q, k), rows (Q, k) int64; -1 where it found fewer."""


def load_faiss() -> ModuleType:
    """The module, imported on first use and after torch, with as many threads as torch has.

    Each brings an OpenMP runtime of its own. Linux keeps the two apart; on a Mac the second one stops the process, or
    crashes as soon as it uses more than one thread.
    """
    if sys.platform == "darwin":
        os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")
    import faiss

    faiss.omp_set_num_threads(1 if sys.platform == "darwin" else torch.get_num_threads())
    return faiss


class ExactIndex:
    """Every query against every vector by matrix products; `blocks` may read from disk each time."""

    def __init__(self, blocks: BlockReader, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.blocks: Callable[[], Iterator[Any]] = blocks
        if self.device.type != "cpu":  # transferred once
            resident = [torch.from_numpy(block).to(self.device, torch.float32) for block in blocks()]
            self.blocks = lambda: iter(resident)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        parts = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(self.device).split(QUERY_ROWS)
        best = [(part.new_empty(len(part), 0), part.new_empty(len(part), 0, dtype=torch.int64)) for part in parts]
        start = 0
        for block in self.blocks():
            vectors = torch.as_tensor(block).to(self.device, torch.float32)
            best = [_merge(*known, part @ vectors.T, start, k) for known, part in zip(best, parts)]
            start += len(vectors)
        scores, rows = zip(*best)
        return torch.cat(scores).cpu().numpy(), torch.cat(rows).cpu().numpy()


def _merge(
    scores: torch.Tensor, rows: torch.Tensor, cosines: torch.Tensor, start: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of those known and of a block whose first row is `start`."""
    block = cosines.topk(min(k, cosines.shape[1]))
    scores, rows = torch.cat([scores, block.values], 1), torch.cat([rows, block.indices + start], 1)
    best = scores.topk(min(k, scores.shape[1]))
    return best.values, rows.gather(1, best.indices)


class GpuIndex:
    """A FAISS index on a GPU that refuses more neighbours than its kernels return."""

    def __init__(self, index: Any):
        self.index = index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if k > GPU_LIMIT:
            raise ValueError(
                f"FAISS returns at most {GPU_LIMIT} on a GPU, not {k}; lower --depth, or use --index exact"
            )
        return self.index.search(queries, k)


def build_index(
    blocks: BlockReader,
    count: int,
    width: int,
    name: str = "flat",
    search_params: str = "",
    device: torch.device | str = "cpu",
) -> Index:
    """An index over `count` unit vectors of `width`. search_params: such as 'nprobe=32' or 'efSearch=128'."""
    device, faiss = torch.device(device), load_faiss()
    if name == "exact" or name == "flat" and device.type != "cpu":  # needs no kernels of FAISS
        return ExactIndex(blocks, device)
    factory_string, default_params = index_factory(name, count, width)
    try:
        index = faiss.index_factory(width, factory_string, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(
            f"index '{name}': FAISS refuses it ({str(error).strip().splitlines()[-1]}); by name: {', '.join(INDEXES)}"
        ) from None
    set_search_params(index, search_params or default_params)
    if not index.is_trained:
        index.train(training_sample(blocks, count, _clusters(count) * TRAINING_ROWS))
    for block in blocks():
        index.add(np.ascontiguousarray(block, np.float32))
    if device.type == "cuda" and faiss.get_num_gpus() and not name.lower().startswith("hnsw"):
        return GpuIndex(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index))
    return index


def set_search_params(index: Any, search_params: str) -> None:
    """How thoroughly a FAISS index searches: 'nprobe=32', 'efSearch=128', or several separated by commas."""
    if search_params:
        try:
            load_faiss().ParameterSpace().set_index_parameters(index, search_params)
        except RuntimeError as error:
            raise ValueError(
                f"--search_params {search_params}: FAISS refuses it ({str(error).strip().splitlines()[-1]})"
            ) from None


def index_factory(name: str, count: int, width: int) -> tuple[str, str]:
    """Name -> FAISS factory string, search parameters that suit `count` vectors."""
    clusters = _clusters(count)
    probes = f"nprobe={max(1, clusters // 16)}"
    if name == "ivf":
        return f"IVF{clusters},Flat", probes
    if name == "ivfpq":  # a byte for about eight dimensions
        sub_vectors = next(m for m in range(max(1, width // 8), 0, -1) if width % m == 0)
        return f"IVF{clusters},PQ{sub_vectors}x{8 if count >= 256 * TRAINING_ROWS else 4}", probes
    return {"flat": ("Flat", ""), "hnsw": ("HNSW32,Flat", "efSearch=128")}.get(name, (name, ""))


def training_sample(blocks: BlockReader, count: int, rows: int) -> np.ndarray:
    """About `rows` vectors, evenly spread over all."""
    return np.concatenate([block[:: max(1, count // rows)] for block in blocks()]).astype(np.float32)


def _clusters(count: int) -> int:
    """4 sqrt(N), the middle of what FAISS's guidelines recommend up to a million."""
    return max(1, min(int(4 * count**0.5), count // TRAINING_ROWS))
