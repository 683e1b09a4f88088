"""What is found helps to ask again: a vector and its nearest neighbours make a better vector.

vectors (M, D), their neighbours (M, k) with cosines (M, k) -> normalise(x + sum cosine^alpha * neighbour)

alpha-weighted query expansion: Radenovic et al. 2019 (TPAMI), section 3.4; alpha 0 is the plain mean of Chum et al.
2007. On the gallery's own vectors, once and before any query, it is database augmentation (Arandjelovic and Zisserman
2012, section 4.2).
"""

import numpy as np
import torch
import torch.nn.functional as F

ROWS = 1024  # vectors expanded at once


def expand(
    vectors: np.ndarray,
    gallery: np.ndarray,
    scores: np.ndarray,
    places: np.ndarray,
    alpha: float = 3.0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """vectors (M, D), gallery (N, D); scores, places (M, k) of each one's neighbours, -1 = none -> (M, D), unit."""
    weights = np.where(places >= 0, np.maximum(scores, 0) ** alpha, 0).astype(np.float32)  # (M, k)
    expanded = []
    for start in range(0, len(vectors), ROWS):
        rows = slice(start, start + ROWS)
        neighbours = torch.from_numpy(gallery[places[rows]]).to(device).float()  # (rows, k, D)
        weight = torch.from_numpy(weights[rows]).to(device)[:, None]
        own = torch.from_numpy(np.ascontiguousarray(vectors[rows], np.float32)).to(device)
        expanded.append(F.normalize(own + (weight @ neighbours)[:, 0], dim=1).cpu())
    return torch.cat(expanded).numpy()


def augment_gallery(
    gallery: np.ndarray, index, k: int, alpha: float = 3.0, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Every gallery vector (N, D) expanded by its k nearest others; `index` holds the same vectors."""
    scores, places = neighbours_of(gallery, index, k)
    return expand(gallery, gallery, scores, places, alpha, device)


def neighbours_of(gallery: np.ndarray, index, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others of each gallery vector -> cosines (N, k), places (N, k), best first."""
    k = min(k, len(gallery) - 1)
    all_scores, all_places = [], []
    for start in range(0, len(gallery), 16 * ROWS):
        block = gallery[start : start + 16 * ROWS]
        scores, places = index.search(block, k + 1)
        itself = places == np.arange(start, start + len(block))[:, None]
        # Among more than k copies of it, or in an approximate index, it may not be in its own list.
        itself[~itself.any(1), -1] = True
        others = np.argsort(itself, axis=1, kind="stable")[:, :k]
        all_scores.append(np.take_along_axis(scores, others, 1))
        all_places.append(np.take_along_axis(places, others, 1))
    return np.concatenate(all_scores), np.concatenate(all_places)
