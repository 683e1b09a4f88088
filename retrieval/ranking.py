"""Ranked lists of a gallery: search, with optional processing of the vectors before and of the lists after.

gallery: PCA-whitening -> database augmentation -> index
queries: PCA-whitening -> search -> query expansion, search again -> re-ranking of the first rerank_depth
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from common.vectors.faiss_index import BlockReader, Index, build_index, load_faiss, training_sample
from common.vectors.shards import l2_normalize
from retrieval.postprocessing import NO_POSTPROCESSING, Postprocessing
from retrieval.reranking import Diffusion, KReciprocal

GRAPH_NEIGHBOURS = 50  # of the diffusion graph (Iscen et al. 2017)
MIN_VARIANCE = 1e-6  # of the largest: directions with less hold rounding errors
EXPANSION_ROWS = 1024  # vectors expanded at once
ROWS_PER_DIMENSION = 1000  # most vectors, per dimension, that whitening is fitted on


class Ranker:
    """`ranker(queries (Q, D), depth)` -> rows (Q, depth) of the gallery, best first, -1 where an index found fewer.

    blocks: the gallery's vectors, (n, D) at a time, read as often as needed. What compares gallery images with each
    other (dba, alpha_qe, re-ranking) holds them in memory, N x D x 4 bytes; plain search holds what its index holds.
    """

    def __init__(
        self,
        blocks: BlockReader,
        count: int,
        width: int,
        processing: Postprocessing = NO_POSTPROCESSING,
        index: str = "flat",
        search_params: str = "",
        device: torch.device | str = "cpu",
    ):
        self.processing, self.device, self.count = processing, device, count
        self.steps: list[str] = []
        self.prepare = l2_normalize
        if processing.pca_whiten >= 0:
            sample = training_sample(blocks, count, ROWS_PER_DIMENSION * width)
            whiten, width = fit_whitening(l2_normalize(sample), processing.pca_whiten)
            self.prepare = lambda vectors: whiten(l2_normalize(vectors))
            self.steps.append(f"PCA-whitening to {width}")
        self.gallery = None

        def prepared():
            return map(self.prepare, blocks()) if self.gallery is None else iter([self.gallery])

        if processing.dba or processing.alpha_qe or processing.rerank != "none":
            self.gallery = np.concatenate(list(prepared()))
        self.index = build_index(prepared, count, width, index, search_params, device)
        if processing.dba:
            neighbours = find_neighbours(self.gallery, self.index, processing.dba)
            self.gallery = expand(self.gallery, self.gallery, *neighbours, processing.alpha, device)
            self.index = build_index(prepared, count, width, index, search_params, device)
            self.steps.append(f"database augmentation with {processing.dba}")
        if processing.alpha_qe:
            self.steps.append(f"query expansion with {processing.alpha_qe}, alpha {processing.alpha:g}")
        self.reranker: Callable[..., np.ndarray] | None = None  # queries, scores, rows (Q, K) -> distances (Q, K)
        if processing.rerank == "k_reciprocal":
            k1, k2, weight = processing.k1, processing.k2, processing.lambda_
            neighbours = find_neighbours(self.gallery, self.index, max(k1, k2))
            self.reranker = KReciprocal(self.gallery, *neighbours, k1, k2, weight)
            self.steps.append(f"k-reciprocal re-ranking: k1 {k1}, k2 {k2}, lambda {weight:g}")
        elif processing.rerank == "diffusion":
            diffusion = Diffusion(*find_neighbours(self.gallery, self.index, GRAPH_NEIGHBOURS))
            self.reranker = lambda queries, scores, rows: -diffusion(scores, rows)
            self.steps.append(f"diffusion over {GRAPH_NEIGHBOURS} neighbours")

    def __call__(self, queries: np.ndarray, depth: int) -> np.ndarray:
        vectors, depth = self.prepare(queries), min(depth, self.count)
        if self.processing.alpha_qe:
            scores, rows = self.index.search(vectors, min(self.processing.alpha_qe, self.count))
            vectors = expand(vectors, self.gallery, scores, rows, self.processing.alpha, self.device)
        if self.reranker is None:
            return self.index.search(vectors, depth)[1]
        first = min(max(self.processing.rerank_depth, self.processing.k1), self.count)
        scores, rows = self.index.search(vectors, max(depth, first))
        order = self.reranker(vectors, scores[:, :first], rows[:, :first]).argsort(axis=1, kind="stable")
        return np.concatenate([np.take_along_axis(rows, order, 1), rows[:, first:]], 1)[:, :depth]


def expand(
    vectors: np.ndarray,
    gallery: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    alpha: float = 3.0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Each vector and its nearest neighbours make a better one: normalise(x + sum cosine^alpha * neighbour).

    vectors (M, D), gallery (N, D); scores, rows (M, k) of each one's neighbours, -1 = none -> (M, D), unit.
    Radenovic et al. 2019 (TPAMI), section 3.4; alpha 0 is the plain mean of Chum et al. 2007. Of the gallery's own
    vectors it is database augmentation (Arandjelovic and Zisserman 2012, section 4.2).
    """
    weights = np.where(rows >= 0, np.maximum(scores, 0) ** alpha, 0).astype(np.float32)  # (M, k)
    expanded = []
    for start in range(0, len(vectors), EXPANSION_ROWS):
        part = slice(start, start + EXPANSION_ROWS)
        neighbours = torch.from_numpy(gallery[rows[part]]).to(device).float()  # (rows, k, D)
        weight = torch.from_numpy(weights[part]).to(device)[:, None]
        own = torch.from_numpy(np.ascontiguousarray(vectors[part], np.float32)).to(device)
        expanded.append(F.normalize(own + (weight @ neighbours)[:, 0], dim=1).cpu())
    return torch.cat(expanded).numpy()


def find_neighbours(gallery: np.ndarray, index: Index, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of each gallery vector -> cosines (N, k), rows (N, k), best first."""
    k = min(k, len(gallery) - 1)
    all_scores, all_rows = [], []
    for start in range(0, len(gallery), 16 * EXPANSION_ROWS):
        block = gallery[start : start + 16 * EXPANSION_ROWS]
        scores, rows = index.search(block, k + 1)
        itself = rows == np.arange(start, start + len(block))[:, None]
        # With more than k duplicates of it, or in an approximate index, it may be missing from its own list.
        itself[~itself.any(1), -1] = True
        others = np.argsort(itself, axis=1, kind="stable")[:, :k]
        all_scores.append(np.take_along_axis(scores, others, 1))
        all_rows.append(np.take_along_axis(rows, others, 1))
    return np.concatenate(all_scores), np.concatenate(all_rows)


def fit_whitening(gallery: np.ndarray, width: int = 0) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """PCA-whitening (Jegou and Chum 2012, ECCV, section 3), fitted on gallery vectors (N, D) float32.

    width: directions to keep, those of most variance; 0 = all that have any. -> a function of vectors (M, D) to
    whitened ones (M, d) of unit length, and d. It is fitted on the gallery alone, never on queries.
    """
    faiss = load_faiss()
    count, dimensions = gallery.shape
    pca = faiss.PCAMatrix(dimensions, min(count, dimensions), -0.5)  # eigen_power: each direction by its deviation
    pca.max_points_per_d = ROWS_PER_DIMENSION
    mean = gallery.mean(0)  # subtracted first: FAISS's float32 covariance would lose small directions to rounding
    pca.train(gallery - mean)
    variance = faiss.vector_to_array(pca.eigenvalues)
    usable = int((variance > MIN_VARIANCE * variance[0]).sum())
    if width > usable:
        raise ValueError(f"--pca_whiten {width}: the {count} gallery vectors vary in {usable} directions only")
    pca.d_out = width or usable
    pca.prepare_Ab()
    return lambda vectors: l2_normalize(pca.apply(vectors - mean)), pca.d_out
