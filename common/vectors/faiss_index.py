"""Which gallery vectors are nearest to a query's?

unit vectors in blocks (n, D) -> index -> queries (Q, D) -> cosines (Q, k), highest first, and places (Q, k)

exact    torch, block by block: on any device, no more in memory than the vectors themselves
flat     FAISS, exact too                       ivf    only the nearest of many clusters are looked into
hnsw     a graph that is walked                 ivfpq  clusters, and a byte for eight dimensions
Any other name is taken as a FAISS factory string, such as IVF4096,SQfp16.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch

from common.vectors.faiss_library import load_faiss

NAMES = ("exact", "flat", "ivf", "hnsw", "ivfpq")
TRAIN_ROWS = 40  # vectors for each cluster that clusters are found with; FAISS warns below 39
GPU_LIMIT = 2048  # the most neighbours that FAISS's GPU kernels give
QUERY_ROWS = 1024
BLOCK_ROWS = 65_536

Blocks = Callable[[], Iterator[np.ndarray]]


class Index(Protocol):
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (Q, D) float32 -> cosines (Q, k), places (Q, k) int64; -1 where it found fewer."""


class ExactIndex:
    """Every query against every vector by matrix products; `blocks` may read from disk each time."""

    def __init__(self, blocks: Blocks, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.device, self.dtype = torch.device(device), dtype
        self.blocks = blocks
        if self.device.type != "cpu":  # once over the bus
            held = [torch.from_numpy(block).to(self.device, dtype) for block in blocks()]
            self.blocks = lambda: iter(held)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32)).to(self.device, self.dtype)
        best = [
            (torch.empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.int64))
            for part in asked.split(QUERY_ROWS)
        ]
        best = [(scores.to(self.device), places.to(self.device)) for scores, places in best]
        start = 0
        for block in self.blocks():
            vectors = torch.as_tensor(block).to(self.device, self.dtype)
            for number, part in enumerate(asked.split(QUERY_ROWS)):
                best[number] = _merge(*best[number], (part @ vectors.T).float(), start, k)
            start += len(vectors)
        scores, places = (torch.cat(parts).cpu().numpy() for parts in zip(*best))
        return scores, places


def _merge(scores, places, found, start: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of those known and of a block that begins at `start`."""
    values, columns = found.topk(min(k, found.shape[1]))
    scores, places = torch.cat([scores, values], 1), torch.cat([places, columns + start], 1)
    kept = scores.topk(min(k, scores.shape[1]))
    return kept.values, places.gather(1, kept.indices)


class GpuIndex:
    """A FAISS index on a GPU, whose limit is said in words."""

    def __init__(self, index):
        self.index = index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if k > GPU_LIMIT:
            raise ValueError(
                f"FAISS finds at most {GPU_LIMIT} on a GPU, not {k}; use a lower --depth, --index exact or --device cpu"
            )
        return self.index.search(queries, k)


def build_index(
    blocks: Blocks,
    count: int,
    width: int,
    name: str = "flat",
    search: str = "",
    device: torch.device | str = "cpu",
    quiet: bool = True,
) -> Index:
    """An index over `count` unit vectors of `width`. search: parameters such as 'nprobe=32' or 'efSearch=128'."""
    device = torch.device(device)
    if name == "exact" or name == "flat" and device.type != "cpu":  # as exact, and needs no kernels of FAISS
        return ExactIndex(blocks, device)
    index = empty_index(name, count, width, search)
    if not index.is_trained:
        index.train(training_sample(blocks, count, _clusters(count) * TRAIN_ROWS))
    for block in blocks():
        index.add(np.ascontiguousarray(block, np.float32))
    faiss = load_faiss()
    if device.type == "cuda" and faiss.get_num_gpus() and not name.lower().startswith("hnsw"):
        return GpuIndex(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index))
    return index


def empty_index(name: str, count: int, width: int, search: str = ""):
    """A FAISS index for inner products, ready to be trained."""
    faiss = load_faiss()
    text, default = factory(name, count, width)
    try:
        index = faiss.index_factory(width, text, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"index '{name}': FAISS refuses it ({reason}); by name: {', '.join(NAMES)}") from None
    set_search(index, search or default)
    return index


def set_search(index, search: str) -> None:
    """How thoroughly a FAISS index looks: 'nprobe=32', 'efSearch=128', or several with commas between."""
    if search:
        try:
            load_faiss().ParameterSpace().set_index_parameters(index, search)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"--search {search}: FAISS refuses it ({reason})") from None


def factory(name: str, count: int, width: int) -> tuple[str, str]:
    """Name -> FAISS factory string, search parameters that suit `count` vectors."""
    clusters = _clusters(count)
    probes = f"nprobe={max(1, clusters // 16)}"
    if name == "ivf":
        return f"IVF{clusters},Flat", probes
    if name == "ivfpq":
        return f"IVF{clusters},PQ{_sub_vectors(width)}x{8 if count >= 256 * TRAIN_ROWS else 4}", probes
    return {"flat": ("Flat", ""), "hnsw": ("HNSW32,Flat", "efSearch=128")}.get(name, (name, ""))


def training_sample(blocks: Blocks, count: int, rows: int) -> np.ndarray:
    """About `rows` vectors, evenly spread over all."""
    step = max(1, count // rows)
    return np.concatenate([block[::step] for block in blocks()]).astype(np.float32)


def _clusters(count: int) -> int:
    """4 sqrt(N), the middle of what FAISS's guidelines recommend up to a million."""
    return max(1, min(int(4 * count**0.5), count // TRAIN_ROWS))


def _sub_vectors(width: int) -> int:
    """Bytes of a product-quantised vector: one for about eight dimensions."""
    return next(m for m in range(max(1, width // 8), 0, -1) if width % m == 0)
