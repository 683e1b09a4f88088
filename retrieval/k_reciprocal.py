"""k-reciprocal re-ranking (Zhong et al. 2017, CVPR).

gallery (N, D), its neighbour lists -> encodings V (N, N), sparse, once
query -> its encoding (1, N) -> Jaccard distances to the candidates' encodings -> candidates (K,) in a new order

Distances d are 1 - cosine, half the squared distance of unit vectors. A query is compared with the gallery alone, so
its results do not depend on the other queries; the authors' program ranks all queries together.
"""

import numpy as np
from scipy.sparse import csr_matrix, identity

QUERY_ROWS = 256  # queries at once
PAIRS = 65_536  # cosines of gallery vectors at once


class KReciprocal:
    """k1: neighbours that must be mutual; k2: neighbours whose encodings are averaged, the vector itself among them;
    weight: lambda, the share of the original distance."""

    def __init__(
        self, gallery: np.ndarray, scores: np.ndarray, rows: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3
    ):
        """gallery (N, D), unit; scores, rows (N, >= k1): each vector's nearest others, best first."""
        if rows.shape[1] < k1:
            raise ValueError(f"k1 {k1}: the gallery has {rows.shape[1]} neighbours for each image; choose a lower k1")
        self.gallery, self.k1, self.k2, self.weight = gallery, k1, k2, weight
        self.kth_score = scores[:, k1 - 1]  # cosine of the k1-th neighbour
        self.mutual_half = _mutual(rows, round(k1 / 2))
        self.encodings = _weights(_grow(_mutual(rows, k1), self.mutual_half), gallery, gallery)
        nearest = np.concatenate([np.arange(len(gallery))[:, None], rows[:, : k2 - 1]], 1)
        self.averaged = _indicators(nearest, len(gallery)) @ self.encodings / k2  # equation 11

    def __call__(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Unit vectors (Q, D), cosines and rows (Q, K) of their candidates, K >= k1 -> distances (Q, K)."""
        parts = [slice(start, start + QUERY_ROWS) for start in range(0, len(queries), QUERY_ROWS)]
        return np.concatenate([self._distances(queries[part], scores[part], rows[part]) for part in parts])

    def _distances(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        count, k = len(self.gallery), rows.shape[1]
        nearest = rows[:, : self.k1]
        mutual = (scores[:, : self.k1] >= self.kth_score[nearest]) & (
            nearest >= 0
        )  # the query is among their k1 nearest
        members = _grow(_indicators(nearest, count, mutual), self.mutual_half)
        encodings = _weights(members, queries, self.gallery)
        encodings = (encodings + _indicators(rows[:, : self.k2 - 1], count) @ self.encodings) / self.k2
        query = np.repeat(np.arange(len(queries)), k)
        candidates = self.averaged[rows.ravel()]
        shared = np.asarray(encodings[query].minimum(candidates).sum(1)).ravel()  # sum of min, equation 10
        sums = np.asarray(encodings.sum(1)).ravel()[query] + np.asarray(candidates.sum(1)).ravel()
        jaccard = 1 - shared / np.maximum(sums - shared, 1e-12)  # the denominator is the sum of max
        return ((1 - self.weight) * jaccard.reshape(-1, k) + self.weight * (1 - scores)).astype(np.float32)


def _mutual(rows: np.ndarray, k: int) -> csr_matrix:
    """R(g, k) of every gallery vector, equation 3: those of the k nearest that have it among theirs, and itself."""
    forward = _indicators(rows[:, :k], len(rows))
    return (forward.multiply(forward.T) + identity(len(rows), dtype=np.float32)).tocsr()


def _grow(mutual: csr_matrix, mutual_half: csr_matrix) -> csr_matrix:
    """R*, equation 5: with the half-size set of each member that shares two thirds of it."""
    shared = mutual.multiply((mutual @ mutual_half.T).tocsr()).tocsr()  # |R(c, k1 / 2) and R(., k1)| of each member c
    sizes = np.diff(mutual_half.indptr)
    shared.data = (shared.data >= 2 / 3 * sizes[shared.indices] - 1e-6).astype(np.float32)
    grown = (mutual + shared @ mutual_half).tocsr()
    grown.eliminate_zeros()
    grown.data[:] = 1
    return grown


def _weights(members: csr_matrix, vectors: np.ndarray, gallery: np.ndarray) -> csr_matrix:
    """V, equation 7: exp(-d) for every member."""
    members.sort_indices()
    row = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
    for start in range(0, len(row), PAIRS):
        part = slice(start, start + PAIRS)
        cosine = np.einsum("nd,nd->n", vectors[row[part]], gallery[members.indices[part]])
        members.data[part] = np.exp(cosine - 1)
    return members


def _indicators(rows: np.ndarray, count: int, chosen: np.ndarray | None = None) -> csr_matrix:
    """rows (M, k), which of them -> (M, count), 1 where chosen; -1, where an index found nothing, never is."""
    chosen = rows >= 0 if chosen is None else chosen
    starts = np.concatenate([[0], chosen.sum(1).cumsum()])
    return csr_matrix((np.ones(starts[-1], np.float32), rows[chosen], starts), (len(rows), count))
