"""Nearest-neighbour indexes over unit vectors, exact and approximate.

vectors in blocks (n, D) -> index -> queries (Q, D) -> cosines (Q, k), highest first, and their rows (Q, k)

exact    torch, block by block: on any device, no more in memory than the vectors themselves
flat     FAISS, exact too                       ivf    searches the nearest of many clusters
hnsw     a graph of neighbours                  ivfpq  clusters, and a byte for eight dimensions
Any other name is taken as a FAISS factory string, such as IVF4096,SQfp16.
"""

import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from common.text.files import write_atomically

EXACT = ("exact", "flat")  # every vector is compared
INDEXES = ("exact", "flat", "ivf", "hnsw", "ivfpq")
TRAINING_ROWS = 40  # vectors per cluster that clustering is trained on; FAISS warns below 39
GPU_LIMIT = 2048  # the most neighbours that FAISS's GPU kernels return
QUERY_ROWS = 1024
UNITS = {"": 1, "k": 1024, "M": 1024**2}
QUANTIZERS = re.compile(r"(OPQ|PQ|P?RQ|P?LSQ)\d+(?:x\d+)*?(?:x(\d{1,2}))?(fs)?(?![\dx])")  # PQ16, PQ16x4fs, PRQ2x8x8
PCA = re.compile(r"PCAW?R?(\d+)")
PRECOMPUTED_BYTES = 2**31  # FAISS's limit for tables of inverted files that it computes in reading
NSG_ROWS = 200  # with fewer than 114, which its lists hold, FAISS ends the whole process
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
    index = trained_index(blocks, count, width, name)
    set_search_params(index, search_params)
    with refusals(name, count):
        for block in blocks():
            index.add(np.ascontiguousarray(block, np.float32))
    if device.type == "cuda" and faiss.get_num_gpus() and not name.lower().startswith("hnsw"):
        return GpuIndex(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index))
    return index


def trained_index(blocks: BlockReader, count: int, width: int, name: str) -> Any:
    """An empty index of FAISS, trained on `count` vectors where it has to be; it searches as suits so many."""
    index, search_params = create_index(name, count, width)
    set_search_params(index, search_params)
    rows = max(_clusters(count), smallest_training_set(index_factory(name, count, width)[0], width)) * TRAINING_ROWS
    with refusals(name, count):
        if not index.is_trained:
            index.train(training_sample(blocks, count, rows))
    return index


@contextmanager
def refusals(name: str, count: int) -> Iterator[None]:
    """ValueError where FAISS refuses to make an index."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"index '{name}': FAISS cannot make it of {count:,} vectors ({_reason(error)})") from None


def create_index(name: str, count: int, width: int) -> tuple[Any, str]:
    """An empty index of FAISS for `count` vectors, and search parameters that suit it.

    ValueError for one that FAISS does not have for this width, or cannot train on so few: known before there is any.
    """
    faiss = load_faiss()
    factory_string, search_params = index_factory(name, count, width)
    if re.search(r"[A-Za-z]0+(?!\d)", factory_string):  # IVF0 can be made, but not searched
        raise ValueError(f"index '{name}': numbers start at 1")
    needed = smallest_training_set(factory_string, width)
    if needed > count:
        raise ValueError(
            f"index '{name}': is trained on at least {needed:,} vectors, and there are {count:,}; "
            "'ivf' chooses its clusters by their number, 'flat' needs no training"
        )
    try:
        index = faiss.index_factory(width, factory_string, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(
            f"index '{name}': FAISS refuses it for vectors of width {width} ({_reason(error)}); "
            f"by name: {', '.join(INDEXES)}"
        ) from None
    if "IDMap" in factory_string:
        raise ValueError(f"index '{name}': has row numbers of its own; omit IDMap")
    if any(kind == "PQ" and bits in ("0", "1", "2") for kind, bits, _ in QUANTIZERS.findall(factory_string)):
        raise ValueError(f"index '{name}': FAISS searches product quantizers of 3 bits and more")
    if any(int(size) > width for size in PCA.findall(factory_string)):
        raise ValueError(f"index '{name}': a PCA cannot give more than the {width} dimensions of the vectors")
    return index, search_params


def smallest_training_set(factory_string: str, width: int) -> int:
    """How many vectors FAISS needs to train an index, or to build its graph."""
    needed = [1]
    needed += [int(size) * UNITS[unit] for size, unit in re.findall(r"IVF(\d+)([kM]?)", factory_string)]
    needed += [2 ** int(bits) for bits in re.findall(r"IMI2x(\d{1,2})", factory_string)]
    needed += [int(size) for size in PCA.findall(factory_string)]
    for kind, bits, fast_scan in re.findall(
        r"(OPQ|PQ|P?RQ|P?LSQ)\d+(?:x\d+)*?(?:x(\d+))?(fs)?(?![\dx])", factory_string
    ):
        needed.append(2 ** int(bits or (4 if fast_scan else 8)))
        needed += [width] if "RQ" in kind else []  # starts with a PCA
    needed += [NSG_ROWS] if "NSG" in factory_string else []
    return max(needed)


def _reason(error: RuntimeError) -> str:
    """The last line of an error of FAISS, without its place in the source."""
    return str(error).strip().splitlines()[-1].partition(" Error: ")[2] or str(error).strip().splitlines()[-1]


def set_search_params(index: Any, search_params: str) -> None:
    """How thoroughly a FAISS index searches: 'nprobe=32', 'efSearch=128', or several separated by commas."""
    if search_params:
        if re.search(r"=\s*(-|0+(,|$))", search_params):  # which FAISS takes, but cannot search with
            raise ValueError(f"--search_params {search_params}: numbers start at 1")
        try:
            load_faiss().ParameterSpace().set_index_parameters(index, search_params)
        except RuntimeError as error:
            raise ValueError(f"--search_params {search_params}: FAISS refuses it ({_reason(error)})") from None


def write_index(path: Path, index: Any) -> int:
    """-> the file's checksum, which read_index wants to see again."""
    with write_atomically(path) as file:
        load_faiss().write_index(index, load_faiss().PyCallbackIOWriter(file.write))
    return _checksum(path)


def read_index(path: Path, checksum: int | None, width: int, mapped: bool = False) -> Any:
    """An index of write_index, for vectors of `width`; None if there is none, or another, or a damaged one.

    mapped: into memory, to be searched only; processes share it, and nothing is read before it is needed.
    """
    if not path.is_file() or checksum != _checksum(path):
        return None
    faiss = load_faiss()
    faiss.set_deserialization_vector_byte_limit(path.stat().st_size + PRECOMPUTED_BYTES)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except (RuntimeError, MemoryError):
        return None
    return index if index.d == width and index.metric_type == faiss.METRIC_INNER_PRODUCT else None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum


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
