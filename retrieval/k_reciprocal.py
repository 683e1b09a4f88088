"""Who finds me among the first is more likely of my kind: k-reciprocal re-ranking (Zhong et al. 2017, CVPR).

gallery (N, D), its neighbour lists -> encodings V (N, N), sparse, once
query -> its encoding (1, N) -> Jaccard distances to the candidates' encodings -> candidates (K,) in a new order

Distances d are 1 - cosine, half the squared distance of unit vectors. A query is compared with the gallery alone, so
what it finds does not depend on what else is asked with it; the authors' program ranks all queries together.
"""

import numpy as np
from scipy.sparse import csr_matrix, identity, vstack

ROWS = 256  # queries, or gallery vectors, at once


class KReciprocal:
    """k1: neighbours that must be mutual; k2: neighbours whose encodings are averaged, the vector itself among them;
    weight: lambda, the share of the original distance."""

    def __init__(
        self,
        gallery: np.ndarray,
        scores: np.ndarray,
        places: np.ndarray,
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
    ):
        """gallery (N, D), unit; scores, places (N, >= k1): each vector's nearest others, best first."""
        if places.shape[1] < k1:
            raise ValueError(f"k1 {k1}: the gallery has {places.shape[1]} neighbours for each image; choose a lower k1")
        self.gallery, self.places, self.k1, self.k2, self.weight = gallery, places, k1, k2, weight
        self.half = round(k1 / 2)
        self.last = scores[:, k1 - 1]  # cosine of the k1-th neighbour
        near = _mutual(places, k1)  # R(g, k1), g itself included
        self.near_half = _mutual(places, self.half)
        encodings = _weights(_grow(near, self.near_half), gallery, gallery)
        count = len(gallery)
        nearest = np.concatenate([np.arange(count)[:, None], places[:, : k2 - 1]], 1)
        self.plain = encodings
        self.encodings = _rows(nearest, count) @ encodings / k2  # equation 11

    def __call__(self, queries: np.ndarray, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Unit vectors (Q, D), cosines and places (Q, K) of their candidates, K >= k1 -> distances (Q, K)."""
        parts = [slice(start, start + ROWS) for start in range(0, len(queries), ROWS)]
        return np.concatenate([self._distances(queries[part], scores[part], places[part]) for part in parts])

    def _distances(self, queries, scores, places) -> np.ndarray:
        count, k = len(self.gallery), places.shape[1]
        first = places[:, : self.k1]
        mutual = (scores[:, : self.k1] >= self.last[first]) & (first >= 0)  # the query is among their k1 nearest
        near = _rows(first, count, mutual)
        own = _weights(_grow(near, self.near_half), queries, self.gallery)
        asked = (own + _rows(places[:, : self.k2 - 1], count) @ self.plain) / self.k2
        row = np.repeat(np.arange(len(queries)), k)
        theirs = self.encodings[places.ravel()]
        shared = np.asarray(asked[row].minimum(theirs).sum(1)).ravel()  # sum of min, equation 10
        total = np.asarray(asked.sum(1)).ravel()[row] + np.asarray(theirs.sum(1)).ravel() - shared  # sum of max
        jaccard = 1 - shared / np.maximum(total, 1e-12)
        return ((1 - self.weight) * jaccard.reshape(-1, k) + self.weight * (1 - scores)).astype(np.float32)


def _mutual(places: np.ndarray, k: int) -> csr_matrix:
    """R(g, k) of every gallery vector, equation 3: those of the k nearest that have it among theirs, and itself."""
    count = len(places)
    forward = _rows(places[:, :k], count)
    return (forward.multiply(forward.T) + identity(count, dtype=np.float32)).tocsr()


def _grow(near: csr_matrix, near_half: csr_matrix) -> csr_matrix:
    """R*, equation 5: with the half-size set of each member that shares two thirds of it."""
    shared = near.multiply((near @ near_half.T).tocsr())  # |R(c, k1 / 2) and R(., k1)| for each member c
    sizes = np.diff(near_half.indptr)
    shared = shared.tocsr()
    shared.data = (shared.data >= 2 / 3 * sizes[shared.indices] - 1e-6).astype(np.float32)
    grown = (near + shared @ near_half).tocsr()
    grown.eliminate_zeros()
    grown.data[:] = 1
    return grown


def _weights(members: csr_matrix, vectors: np.ndarray, gallery: np.ndarray) -> csr_matrix:
    """V, equation 7: exp(-d) for every member."""
    members.sort_indices()
    parts = []
    for start in range(0, members.shape[0], 16 * ROWS):
        part = members[start : start + 16 * ROWS]
        row = np.repeat(np.arange(start, start + part.shape[0]), np.diff(part.indptr))
        cosine = np.concatenate(
            [
                np.einsum("nd,nd->n", vectors[row[at : at + 65_536]], gallery[part.indices[at : at + 65_536]])
                for at in range(0, max(len(row), 1), 65_536)
            ]
        )
        part.data = np.exp(cosine - 1).astype(np.float32)
        parts.append(part)
    return vstack(parts, format="csr")


def _rows(places: np.ndarray, count: int, chosen: np.ndarray | None = None) -> csr_matrix:
    """places (M, k), which of them -> (M, count), 1 where chosen; -1, where an index found nothing, never is."""
    chosen = places >= 0 if chosen is None else chosen
    starts = np.concatenate([[0], chosen.sum(1).cumsum()])
    return csr_matrix((np.ones(starts[-1], np.float32), places[chosen], starts), (len(places), count))
