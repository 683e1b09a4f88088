"""Directions that all images share say little: PCA-whitening gives every direction of the gallery the same spread.

vectors (N, D) in blocks -> mean (D,), projection (D, d) -> whitened vectors (N, d), of unit length again

Jegou and Chum 2012 (ECCV), section 3. Fitted on the gallery alone and applied to both sides: fitted on the queries too
it would know what is asked.
"""

from collections.abc import Callable, Iterator

import numpy as np

from common.vectors.shards import unit

LEAST_SHARE = 1e-6  # of the largest variance: directions with less hold rounding errors


class Whitening:
    def __init__(self, mean: np.ndarray, projection: np.ndarray):
        self.mean, self.projection = mean, projection

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) -> (N, d) float32, unit length."""
        return unit((vectors - self.mean) @ self.projection)


def fit_whitening(blocks: Callable[[], Iterator[np.ndarray]], width: int = 0) -> Whitening:
    """width: directions to keep, those of most variance; 0 = all that have any."""
    count, total, square = 0, 0.0, 0.0
    for block in blocks():
        block = block.astype(np.float64)
        count, total, square = count + len(block), total + block.sum(0), square + block.T @ block
    mean = total / count
    variance, directions = np.linalg.eigh(square / count - np.outer(mean, mean))  # ascending
    variance, directions = variance[::-1], directions[:, ::-1]
    usable = int((variance > LEAST_SHARE * variance[0]).sum())
    if width > usable:
        raise ValueError(f"--pca_whiten {width}: the {count} gallery vectors vary in {usable} directions only")
    kept = slice(width or usable)
    projection = directions[:, kept] / np.sqrt(variance[kept])
    return Whitening(mean.astype(np.float32), projection.astype(np.float32))
