"""Ranked lists of a gallery: search, with optional processing of the vectors before and of the lists after.

gallery: PCA-whitening -> database augmentation -> index
queries: PCA-whitening -> search -> query expansion, search again -> re-ranking of the first rerank_depth
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt

from common.vectors.faiss_index import BlockReader, build_index, load_faiss, training_sample
from common.vectors.shards import l2_normalize
from retrieval.diffusion import Diffusion
from retrieval.k_reciprocal import KReciprocal
from retrieval.query_expansion import augment_gallery, expand, find_neighbours

GRAPH_NEIGHBOURS = 50  # of the diffusion graph (Iscen et al. 2017)
MIN_VARIANCE = 1e-6  # of the largest: directions with less hold rounding errors
ROWS_PER_DIMENSION = 1000  # most vectors, per dimension, that whitening is fitted on


@dataclass(frozen=True)
class Postprocessing:
    pca_whiten: int = -1  # PCA-whitening fitted on the gallery, to so many directions; 0: all, -1: none
    dba: NonNegativeInt = 0  # database augmentation: gallery vectors averaged with so many neighbours
    alpha_qe: NonNegativeInt = 0  # query expansion: query vectors averaged with so many neighbours
    alpha: NonNegativeFloat = 3.0  # of both: the weight is cosine^alpha; 0: plain mean
    rerank: Literal["none", "k_reciprocal", "diffusion"] = "none"
    rerank_depth: PositiveInt = 1000  # how much of each list is re-ranked
    k1: PositiveInt = 20  # k-reciprocal: neighbours that must be mutual
    k2: PositiveInt = 6  # k-reciprocal: encodings that are averaged
    lambda_: ClosedUnitInterval = 0.3  # k-reciprocal: share of the original distance


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
        processing: Postprocessing = Postprocessing(),
        index: str = "flat",
        search_params: str = "",
        device: torch.device | str = "cpu",
    ):
        self.processing, self.device, self.count = processing, device, count
        self.steps: list[str] = []
        self.prepare = l2_normalize
        if processing.pca_whiten >= 0:
            sample = l2_normalize(training_sample(blocks, count, ROWS_PER_DIMENSION * width))
            whiten, width = fit_whitening(sample, processing.pca_whiten)
            self.prepare = lambda vectors: whiten(l2_normalize(vectors))
            self.steps.append(f"PCA-whitening to {width}")
        self.gallery = None

        def prepared():
            return map(self.prepare, blocks()) if self.gallery is None else iter([self.gallery])

        if processing.dba or processing.alpha_qe or processing.rerank != "none":
            self.gallery = np.concatenate(list(prepared()))
        self.index = build_index(prepared, count, width, index, search_params, device)
        if processing.dba:
            self.gallery = augment_gallery(self.gallery, self.index, processing.dba, processing.alpha, device)
            self.index = build_index(prepared, count, width, index, search_params, device)
            self.steps.append(f"database augmentation with {processing.dba}")
        if processing.alpha_qe:
            self.steps.append(f"query expansion with {processing.alpha_qe}, alpha {processing.alpha:g}")
        self.reranker = self._reranker()

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

    def _reranker(self) -> Callable[..., np.ndarray] | None:
        """-> a function of queries, scores and rows (Q, K) to distances (Q, K) by which they are sorted."""
        rerank, k1, k2, weight = (getattr(self.processing, name) for name in ("rerank", "k1", "k2", "lambda_"))
        if rerank == "none":
            return None
        if rerank == "k_reciprocal":
            self.steps.append(f"k-reciprocal re-ranking: k1 {k1}, k2 {k2}, lambda {weight:g}")
            return KReciprocal(self.gallery, *find_neighbours(self.gallery, self.index, max(k1, k2)), k1, k2, weight)
        diffusion = Diffusion(*find_neighbours(self.gallery, self.index, GRAPH_NEIGHBOURS))
        self.steps.append(f"diffusion over {GRAPH_NEIGHBOURS} neighbours")
        return lambda queries, scores, rows: -diffusion(scores, rows)


def fit_whitening(gallery: np.ndarray, width: int = 0) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """PCA-whitening (Jegou and Chum 2012, ECCV, section 3), fitted on gallery vectors (N, D) float32.

    width: directions to keep, those of most variance; 0 = all that have any. -> a function of vectors (M, D) to
    whitened ones (M, d) of unit length, and d. It is fitted on the gallery alone: queries would reveal what is asked.
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
