"""Re-ranking of candidates by their neighbourhoods in the gallery: k-reciprocal encodings, diffusion.

cosines, rows (Q, K) of the candidates of Q queries -> distances or similarities (Q, K) that order them anew
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, identity

ROWS = 256  # queries at once
PAIRS = 65_536  # cosines of gallery vectors at once
DIFFUSION_ROWS = 64  # queries solved at once: N x DIFFUSION_ROWS numbers are held a few times
TOLERANCE = 1e-6  # of the residual's length


class KReciprocal:
    """k-reciprocal re-ranking (Zhong et al. 2017, CVPR), computed as in the authors' re_ranking.

    gallery (N, D), its neighbour lists -> encodings V (N, N), sparse, once
    query -> its encoding (1, N) -> Jaccard distances to the candidates' encodings -> candidates (K,) in a new order

    d(x, g) is the squared distance of unit vectors, divided by that of x's farthest gallery vector; encodings sum to 1.
    A query is compared with the gallery alone, so its results do not depend on the other queries; the authors' program
    ranks all queries together.

    gallery (N, D), unit; scores, rows (N, >= k1): each vector's nearest others, best first. k1: neighbours that must be
    mutual; k2: neighbours whose encodings are averaged, the vector itself among them; weight: lambda, the share of the
    original distance.
    """

    def __init__(
        self, gallery: np.ndarray, scores: np.ndarray, rows: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3
    ):
        if rows.shape[1] < k1:
            raise ValueError(f"k1 {k1}: the gallery has {rows.shape[1]} neighbours for each image; choose a lower k1")
        self.gallery, self.k1, self.k2, self.weight = gallery, k1, k2, weight
        self.kth_score = scores[:, k1 - 1]  # cosine of the k1-th neighbour
        self.mutual_half = _mutual(rows, round(k1 / 2))
        members = _grow(_mutual(rows, k1), self.mutual_half)
        self.encodings = _encode(members, gallery, gallery, _farthest(gallery, gallery))
        nearest = np.concatenate([np.arange(len(gallery))[:, None], rows[:, : k2 - 1]], 1)
        self.averaged = _indicators(nearest, len(gallery)) @ self.encodings / k2  # equation 11

    def __call__(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Unit vectors (Q, D), cosines and rows (Q, K) of their candidates, K >= k1 -> distances (Q, K)."""
        parts = [slice(start, start + ROWS) for start in range(0, len(queries), ROWS)]
        return np.concatenate([self._distances(queries[part], scores[part], rows[part]) for part in parts])

    def _distances(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        count, k = len(self.gallery), rows.shape[1]
        nearest = rows[:, : self.k1]
        # Mutual: the query is among their k1 nearest.
        mutual = (scores[:, : self.k1] >= self.kth_score[nearest]) & (nearest >= 0)
        members = _grow(_indicators(nearest, count, mutual), self.mutual_half)
        farthest = _farthest(queries, self.gallery)
        encodings = _encode(members, queries, self.gallery, farthest, own=1)
        encodings = (encodings + _indicators(rows[:, : self.k2 - 1], count) @ self.encodings) / self.k2
        query = np.repeat(np.arange(len(queries)), k)
        shared = np.asarray(encodings[query].minimum(self.averaged[rows.ravel()]).sum(1))  # sum of min, equation 10
        jaccard = 1 - shared / (2 - shared)  # encodings sum to 1, so the denominator is the sum of max
        distances = (1 - self.weight) * jaccard.reshape(-1, k) + self.weight * (1 - scores) / farthest[:, None]
        return distances.astype(np.float32)


def _mutual(rows: np.ndarray, k: int) -> csr_matrix:
    """R(g, k) of every gallery vector, equation 3: those of the k nearest that have it among theirs, and itself."""
    forward = _indicators(rows[:, :k], len(rows))
    return (forward.multiply(forward.T) + identity(len(rows), dtype=np.float32)).tocsr()


def _grow(mutual: csr_matrix, mutual_half: csr_matrix) -> csr_matrix:
    """R*, equation 5: with the half-size set of each member that shares more than two thirds of it, as in the authors'
    program; the paper's sign is >=."""
    shared = mutual.multiply((mutual @ mutual_half.T).tocsr()).tocsr()  # |R(c, k1 / 2) and R(., k1)| of each member c
    sizes = np.diff(mutual_half.indptr)
    shared.data = (3 * shared.data > 2 * sizes[shared.indices]).astype(np.float32)
    grown = (mutual + shared @ mutual_half).tocsr()
    grown.eliminate_zeros()
    grown.data[:] = 1
    return grown


def _encode(
    members: csr_matrix, vectors: np.ndarray, gallery: np.ndarray, farthest: np.ndarray, own: float = 0
) -> csr_matrix:
    """V, equation 7: exp(-d) for every member, as a share of its row's sum.

    own: weight of the vector itself, where no column stands for it: 1 of a query, whose distance from itself is 0.
    """
    members.sort_indices()
    row = np.repeat(np.arange(members.shape[0]), np.diff(members.indptr))
    for start in range(0, len(row), PAIRS):
        part = slice(start, start + PAIRS)
        distances = 1 - np.einsum("nd,nd->n", vectors[row[part]], gallery[members.indices[part]])
        members.data[part] = np.exp(-distances / farthest[row[part]])
    return diags(1 / (own + np.asarray(members.sum(1)).ravel())) @ members


def _farthest(vectors: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """vectors (M, D) -> the largest 1 - cosine of each to a gallery vector (M,)."""
    blocks = (vectors[start : start + ROWS] for start in range(0, len(vectors), ROWS))
    return np.maximum(np.concatenate([1 - (block @ gallery.T).min(1) for block in blocks]), 1e-6)


def _indicators(rows: np.ndarray, count: int, chosen: np.ndarray | None = None) -> csr_matrix:
    """rows (M, k), which of them -> (M, count), 1 where chosen; -1, where an index found nothing, never is."""
    chosen = rows >= 0 if chosen is None else chosen
    starts = np.concatenate([[0], chosen.sum(1).cumsum()])
    return csr_matrix((np.ones(starts[-1], np.float32), rows[chosen], starts), (len(rows), count))


class Diffusion:
    """Diffusion (Iscen et al. 2017, CVPR, sections 3 and 4): similarity spreads along a graph of neighbours.

    gallery's neighbour lists -> symmetric graph S (N, N), sparse, once
    query's neighbours y (N,) -> solve (I - alpha S) f = (1 - alpha) y -> f of its candidates (K,)

    Regional diffusion with one vector per image, by conjugate gradients. scores, rows (N, k): each gallery vector's
    nearest others; the paper has k = 50. gamma: exponent of cosines as edge weights; alpha: how far similarity spreads;
    query_k: neighbours that connect a query to the graph.
    """

    def __init__(
        self,
        scores: np.ndarray,
        rows: np.ndarray,
        gamma: float = 3.0,
        alpha: float = 0.99,
        query_k: int = 10,
        steps: int = 100,
    ):
        count = len(rows)
        self.gamma, self.alpha, self.query_k, self.steps = gamma, alpha, query_k, steps
        weights = np.maximum(scores, 0).astype(np.float64) ** gamma
        real = rows >= 0  # an approximate index may find fewer
        starts = np.concatenate([[0], real.sum(1).cumsum()])
        edges = csr_matrix((weights[real], rows[real], starts), (count, count))
        edges = edges.minimum(edges.T)  # mutual neighbours only
        degree = np.asarray(edges.sum(1)).ravel()
        scale = diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
        self.system = (identity(count) - alpha * (scale @ edges @ scale)).tocsr().astype(np.float32)

    def __call__(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Cosines and rows (Q, K) of the queries' candidates -> how much of the query reaches them (Q, K)."""
        reached = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), DIFFUSION_ROWS):
            part = slice(start, start + DIFFUSION_ROWS)
            entry_rows = rows[part, : self.query_k]
            query = np.arange(len(entry_rows))[:, None]
            entry = np.where(entry_rows >= 0, np.maximum(scores[part, : self.query_k], 0) ** self.gamma, 0)
            source = np.zeros((self.system.shape[0], len(entry)), np.float32)  # (N, Q)
            np.add.at(source, (entry_rows, query), entry)
            solution = conjugate_gradients(self.system, (1 - self.alpha) * source, self.steps)
            reached[part] = np.where(rows[part] >= 0, solution[rows[part], query], -np.inf)
        return reached


def conjugate_gradients(system: csr_matrix, right: np.ndarray, steps: int) -> np.ndarray:
    """Solve system @ x = right (N, Q), symmetric positive definite.

    All columns at once, which on graphs of 5,000 and 50,000 images took 0.55 and 0.7 of the time of
    scipy.sparse.linalg.cg on one column after the other.
    """
    solution = np.zeros_like(right)
    residual, direction = right.copy(), right.copy()
    size = (residual**2).sum(0)
    enough = TOLERANCE**2 * size
    for _ in range(steps):
        if (size <= enough).all():
            break
        moved = system @ direction
        step = size / np.maximum((direction * moved).sum(0), 1e-30)
        solution += step * direction
        residual -= step * moved
        before, size = size, (residual**2).sum(0)
        direction = residual + size / np.maximum(before, 1e-30) * direction
    return solution
