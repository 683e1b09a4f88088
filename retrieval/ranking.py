"""From a query's vector to a ranked list: the index, and what is done before and after it, in their order.

gallery: PCA-whitening -> database augmentation -> index
queries: PCA-whitening -> search -> query expansion, search again -> re-ranking of the first rerank_depth
"""

from dataclasses import dataclass

import numpy as np
import torch

from common.vectors.faiss_index import Blocks, build_index
from common.vectors.shards import unit
from retrieval.diffusion import Diffusion
from retrieval.k_reciprocal import KReciprocal
from retrieval.query_expansion import augment_gallery, expand, neighbours_of
from retrieval.whitening import fit_whitening

RERANKERS = ("none", "k_reciprocal", "diffusion")
GRAPH_NEIGHBOURS = 50  # of the diffusion graph (Iscen et al. 2017)


@dataclass(frozen=True)
class Postprocessing:
    pca_whiten: int = -1  # directions kept; 0 = all, -1 = no whitening
    dba: int = 0  # neighbours that join a gallery vector
    alpha_qe: int = 0  # neighbours that join a query
    alpha: float = 3.0
    rerank: str = "none"
    rerank_depth: int = 1000
    k1: int = 20
    k2: int = 6
    weight: float = 0.3


class Ranker:
    """`ranker(queries (Q, D), depth)` -> places (Q, depth) in the gallery, best first, -1 where an index found fewer.

    blocks: the gallery's vectors, (n, D) at a time, read as often as needed. What compares gallery images with each
    other (dba, alpha_qe, re-ranking) holds them in memory, N x D x 4 bytes; plain search holds what its index holds.
    """

    def __init__(
        self,
        blocks: Blocks,
        count: int,
        width: int,
        after: Postprocessing = Postprocessing(),
        index: str = "flat",
        search: str = "",
        device: torch.device | str = "cpu",
    ):
        self.after, self.device, self.count = after, device, count
        self.steps: list[str] = []
        self.prepare = unit
        if after.pca_whiten >= 0:
            whitening = fit_whitening(lambda: map(unit, blocks()), after.pca_whiten)
            self.prepare = lambda vectors: whitening(unit(vectors))
            width = whitening.projection.shape[1]
            self.steps.append(f"PCA-whitening to {width}")
        read = lambda: map(self.prepare, blocks())  # noqa: E731
        self.gallery = None
        if after.dba or after.alpha_qe or after.rerank != "none":
            self.gallery = np.concatenate(list(read()))
            read = lambda: iter([self.gallery])  # noqa: E731
        self.index = build_index(read, count, width, index, search, device)
        if after.dba:
            self.gallery = augment_gallery(self.gallery, self.index, after.dba, after.alpha, device)
            self.index = build_index(read, count, width, index, search, device)
            self.steps.append(f"database augmentation with {after.dba}")
        if after.alpha_qe:
            self.steps.append(f"query expansion with {after.alpha_qe}, alpha {after.alpha:g}")
        self.reranker = self._reranker()

    def __call__(self, queries: np.ndarray, depth: int) -> np.ndarray:
        vectors, depth = self.prepare(queries), min(depth, self.count)
        if self.after.alpha_qe:
            scores, places = self.index.search(vectors, min(self.after.alpha_qe, self.count))
            vectors = expand(vectors, self.gallery, scores, places, self.after.alpha, self.device)
        if self.reranker is None:
            return self.index.search(vectors, depth)[1]
        first = min(max(self.after.rerank_depth, self.after.k1), self.count)
        scores, places = self.index.search(vectors, max(depth, first))
        order = self.reranker(vectors, scores[:, :first], places[:, :first]).argsort(axis=1, kind="stable")
        return np.concatenate([np.take_along_axis(places, order, 1), places[:, first:]], 1)[:, :depth]

    def _reranker(self):
        """-> a function of queries, scores and places (Q, K) to what they are sorted by, least first; or None."""
        after = self.after
        if after.rerank == "none":
            return None
        if after.rerank == "k_reciprocal":
            scores, places = neighbours_of(self.gallery, self.index, max(after.k1, after.k2))
            self.steps.append(f"k-reciprocal re-ranking: k1 {after.k1}, k2 {after.k2}, lambda {after.weight:g}")
            return KReciprocal(self.gallery, scores, places, after.k1, after.k2, after.weight)
        diffusion = Diffusion(*neighbours_of(self.gallery, self.index, GRAPH_NEIGHBOURS))
        self.steps.append(f"diffusion over {GRAPH_NEIGHBOURS} neighbours")
        return lambda queries, scores, places: -diffusion(scores, places)
