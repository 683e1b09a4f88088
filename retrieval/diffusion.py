"""Images of one kind may hang together like a chain: similarity spreads along a graph of neighbours.

gallery's neighbour lists -> symmetric graph S (N, N), sparse, once
query's neighbours y (N,) -> solve (I - alpha S) f = (1 - alpha) y -> f of its candidates (K,)

Iscen et al. 2017 (CVPR), sections 3 and 4: regional diffusion with one vector an image, by conjugate gradients.
"""

import numpy as np
from scipy.sparse import csr_matrix, diags, identity

ROWS = 64  # queries solved at once: N x ROWS numbers are held a few times
TOLERANCE = 1e-6  # of the residual's length


class Diffusion:
    """gamma: exponent of cosines as edge weights; alpha: how far similarity spreads; query_k: neighbours that a query
    enters the graph by."""

    def __init__(
        self,
        scores: np.ndarray,
        places: np.ndarray,
        gamma: float = 3.0,
        alpha: float = 0.99,
        query_k: int = 10,
        steps: int = 100,
    ):
        """scores, places (N, k): each gallery vector's nearest others; the paper has k = 50."""
        count = len(places)
        self.gamma, self.alpha, self.query_k, self.steps = gamma, alpha, query_k, steps
        weights = np.maximum(scores, 0).astype(np.float64) ** gamma
        real = places >= 0  # an approximate index may find fewer
        starts = np.concatenate([[0], real.sum(1).cumsum()])
        edges = csr_matrix((weights[real], places[real], starts), (count, count))
        edges = edges.minimum(edges.T)  # neighbours of each other only
        degree = np.asarray(edges.sum(1)).ravel()
        scale = diags(1 / np.sqrt(np.where(degree > 0, degree, 1)))
        self.system = (identity(count) - alpha * (scale @ edges @ scale)).tocsr().astype(np.float32)

    def __call__(self, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Cosines and places (Q, K) of the queries' candidates -> how much of the query reaches them (Q, K)."""
        parts = [slice(start, start + ROWS) for start in range(0, len(places), ROWS)]
        return np.concatenate([self._reached(scores[part], places[part]) for part in parts])

    def _reached(self, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
        first = slice(self.query_k)
        start = np.zeros((self.system.shape[0], len(places)), np.float32)  # (N, Q)
        query = np.arange(len(places))[:, None]
        entry = np.maximum(scores[:, first], 0) ** self.gamma
        np.add.at(start, (places[:, first], query), np.where(places[:, first] >= 0, entry, 0))
        found = conjugate_gradients(self.system, (1 - self.alpha) * start, self.steps)
        return np.where(places >= 0, found[places, query], -np.inf)


def conjugate_gradients(system: csr_matrix, right: np.ndarray, steps: int) -> np.ndarray:
    """Solve system @ x = right (N, Q), all columns at once; symmetric positive definite."""
    found = np.zeros_like(right)
    residual, direction = right.copy(), right.copy()
    size = (residual**2).sum(0)
    enough = TOLERANCE**2 * size
    for _ in range(steps):
        if (size <= enough).all():
            break
        moved = system @ direction
        step = size / np.maximum((direction * moved).sum(0), 1e-30)
        found += step * direction
        residual -= step * moved
        before, size = size, (residual**2).sum(0)
        direction = residual + size / np.maximum(before, 1e-30) * direction
    return found
