"""Query expansion and database augmentation: a vector and its nearest neighbours make a better vector.

vectors (M, D), their neighbours (M, k) with cosines (M, k) -> normalise(x + sum cosine^alpha * neighbour)

alpha-weighted query expansion: Radenovic et al. 2019 (TPAMI), section 3.4; alpha 0 is the plain mean of Chum et al.
2007. Applied to the gallery's own vectors it is database augmentation (Arandjelovic and Zisserman 2012, section 4.2).
"""

import numpy as np
import torch
import torch.nn.functional as F

from common.vectors.faiss_index import Index

ROWS = 1024  # vectors expanded at once


def expand(
    vectors: np.ndarray,
    gallery: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    alpha: float = 3.0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """vectors (M, D), gallery (N, D); scores, rows (M, k) of each one's neighbours, -1 = none -> (M, D), unit."""
    weights = np.where(rows >= 0, np.maximum(scores, 0) ** alpha, 0).astype(np.float32)  # (M, k)
    expanded = []
    for start in range(0, len(vectors), ROWS):
        part = slice(start, start + ROWS)
        neighbours = torch.from_numpy(gallery[rows[part]]).to(device).float()  # (rows, k, D)
        weight = torch.from_numpy(weights[part]).to(device)[:, None]
        own = torch.from_numpy(np.ascontiguousarray(vectors[part], np.float32)).to(device)
        expanded.append(F.normalize(own + (weight @ neighbours)[:, 0], dim=1).cpu())
    return torch.cat(expanded).numpy()


def augment_gallery(
    gallery: np.ndarray, index: Index, k: int, alpha: float = 3.0, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Every gallery vector (N, D) expanded by its k nearest others; `index` holds the same vectors."""
    return expand(gallery, gallery, *find_neighbours(gallery, index, k), alpha, device)


def find_neighbours(gallery: np.ndarray, index: Index, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of each gallery vector -> cosines (N, k), rows (N, k), best first."""
    k = min(k, len(gallery) - 1)
    all_scores, all_rows = [], []
    for start in range(0, len(gallery), 16 * ROWS):
        block = gallery[start : start + 16 * ROWS]
        scores, rows = index.search(block, k + 1)
        itself = rows == np.arange(start, start + len(block))[:, None]
        # With more than k duplicates of it, or in an approximate index, it may be missing from its own list.
        itself[~itself.any(1), -1] = True
        others = np.argsort(itself, axis=1, kind="stable")[:, :k]
        all_scores.append(np.take_along_axis(scores, others, 1))
        all_rows.append(np.take_along_axis(rows, others, 1))
    return np.concatenate(all_scores), np.concatenate(all_rows)
