"""Retrieval metrics of embeddings with class labels.

vectors (N, W), labels (N,) -> similarity (b, N), a block of queries at a time
  -> precision@1 and MAP@R of every query, ROC-AUC of pairs; with per_class also of each class, and 95 % intervals

Memory on top of the vectors is bounded by BLOCK_BYTES, however many or wide they are; they are never copied whole.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from common.metrics.bootstrap import bootstrap_means, interval_of
from common.metrics.pair_auc import TIE, PairHistograms

BLOCK_BYTES = 2**26  # of similarities, and of vectors gathered from the caller's tensor for a product of matrices
PAIR_BYTES = 2**20  # of vectors gathered for single pairs: what a core's cache holds
CONFLICT_TRIPLES = 2**14  # standard error of their share at most 0.004
MIN_CLASSES = 5  # for an interval: in simulations 95 % intervals over 5 classes held the truth in 91 %, over 3 in 67 %


def retrieval_metrics(
    vectors: torch.Tensor, labels: torch.Tensor, per_class: bool = False, csls_k: int = 0
) -> dict[str, Any]:
    """Cosine retrieval of every vector among all others, {} if no class has two members or there is only one class.

    auc: probability that a same-class pair is more similar than an other-class pair, ties counting half.
    precision_at_1, map_at_r: means over queries (Musgrave et al. 2020, arXiv 2003.08505); a vector whose class has no
    other member is no query. csls_k: similarities corrected by so many neighbours (see csls), 0 for plain cosines.
    per_class adds "per_class", {label: the same three}, and "interval", {metric: [low, high]}: 95 %, by resampling
    classes, since images of one class are not independent; absent with fewer than MIN_CLASSES classes.
    """
    classes, labels, members = torch.as_tensor(labels).cpu().unique(return_inverse=True, return_counts=True)
    if len(classes) < 2 or members.max() < 2:
        return {}
    # Neighbours at equal distance come in the order of columns. In that of files on disk, which are sorted by class, a
    # model that maps everything to one point would look perfect.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    labels = labels[order]
    histograms = PairHistograms(labels, len(classes) if per_class else 0)
    hubness = mean_neighbour_similarity(vectors, order, csls_k) if csls_k else None
    scores = []
    for start, similarity in similarity_blocks(vectors, order, hubness):
        own = labels[start : start + len(similarity)]
        scores.append(precision_at_r(similarity, own, labels, members[own] - 1))
        histograms.add(start, similarity)
    query = members[labels] > 1
    values, query_labels = torch.cat(scores)[query].numpy(), labels[query].numpy()  # (Q, 2), (Q,)
    names = ("precision_at_1", "map_at_r")
    metrics: dict[str, Any] = {"auc": histograms.auc(), **dict(zip(names, values.mean(0).tolist()))}
    if per_class:
        means = np.stack([np.bincount(query_labels, column, len(classes)) for column in values.T], 1)
        class_auc = histograms.class_auc()
        metrics["per_class"] = {
            label: {"auc": class_auc[row], **dict(zip(names, (means[row] / size).tolist()))}
            for row, (label, size) in enumerate(zip(classes.tolist(), members.tolist()))
            if size > 1
        }
        if len(metrics["per_class"]) >= MIN_CLASSES:
            rows = np.unique(query_labels, return_inverse=True)[1]
            resampled = bootstrap_means([(column, rows) for column in values.T])
            columns = {"auc": histograms.resampled_auc(), **dict(zip(names, resampled.T))}
            metrics["interval"] = {
                name: list(interval_of(column, len(metrics["per_class"]))) for name, column in columns.items()
            }
    return metrics


def similarity_blocks(
    vectors: torch.Tensor, order: torch.Tensor, hubness: torch.Tensor | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Cosines of vectors[order] (N, W) with themselves -> first row, (b, N) float32; -inf where one meets itself.

    hubness (N,), in this order: of mean_neighbour_similarity; the similarity is then that of csls.
    """
    vectors = vectors.detach().cpu()
    count, width = vectors.shape
    factor = 1 / lengths(vectors)[order]
    rows = max(1, BLOCK_BYTES // (4 * max(count, width)))
    columns = max(1, BLOCK_BYTES // (4 * width))
    for start in range(0, count, rows):
        queries = vectors[order[start : start + rows]].float() * factor[start : start + rows, None]
        similarity = torch.empty(len(queries), count)
        for first in range(0, count, columns):
            part = slice(first, first + columns)
            similarity[:, part] = queries @ vectors[order[part]].float().T
        similarity *= factor
        if hubness is not None:
            similarity.mul_(2).sub_(hubness).sub_(hubness[start : start + rows, None])
        similarity.diagonal(start).fill_(-torch.inf)
        yield start, similarity


def mean_neighbour_similarity(vectors: torch.Tensor, order: torch.Tensor, k: int) -> torch.Tensor:
    """Mean cosine of each of vectors[order] with its k nearest others -> (N,)."""
    k = min(k, len(order) - 1)
    return torch.cat([block.topk(k).values.mean(1) for _, block in similarity_blocks(vectors, order)])


def precision_at_r(
    similarity: torch.Tensor, own: torch.Tensor, labels: torch.Tensor, relevant: torch.Tensor
) -> torch.Tensor:
    """similarity (b, N), labels of rows (b,) and columns (N,), R of each row (b,) -> P@1 and AP@R (b, 2) float64."""
    hit = labels[similarity.topk(max(1, int(relevant.max()))).indices] == own[:, None]  # (b, k), best first
    rank = torch.arange(1, hit.shape[1] + 1)
    precision = hit.cumsum(1).double().div_(rank).mul_(hit & (rank <= relevant[:, None])).sum(1)
    return torch.stack([hit[:, 0].double(), precision / relevant.clamp(min=1)], 1)


def content_conflict(vectors: torch.Tensor, styles: torch.Tensor, contents: torch.Tensor) -> dict[str, Any]:
    """Style against content -> "conflict", and "conflict_interval" (95 %, over styles) from MIN_CLASSES styles on.

    conflict: share of triples in which an image is more similar to one of its style with another content than to one of
    its content in another style, ties counting half. CONFLICT_TRIPLES drawn with a fixed seed; {} if there are none.
    """
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randint(len(styles), (min(CONFLICT_TRIPLES, 256 * len(styles)),), generator=generator)
    positive, distractor = (other_member(ids, anchor, generator) for ids in (styles, contents))
    valid = (contents[positive] != contents[anchor]) & (styles[distractor] != styles[anchor])
    anchor, positive, distractor = anchor[valid], positive[valid], distractor[valid]
    if not len(anchor):
        return {}
    vectors = vectors.detach().cpu()
    length = lengths(vectors)
    with_style, with_content = (
        pair_products(vectors, vectors, anchor, other) / length[anchor] / length[other]
        for other in (positive, distractor)
    )
    margin = with_style - with_content
    wins = (margin > TIE).double() + 0.5 * (margin.abs() <= TIE)
    result: dict[str, Any] = {"conflict": wins.mean().item()}
    rows = styles[anchor].unique(return_inverse=True)[1]
    if rows.max() + 1 >= MIN_CLASSES:
        means = bootstrap_means([(wins.numpy(), rows.numpy())])[:, 0]
        result["conflict_interval"] = list(interval_of(means, int(rows.max()) + 1))
    return result


def other_member(ids: torch.Tensor, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For each index (T,) a random other one with the same id; itself where there is none."""
    sizes = ids.unique(return_inverse=True, return_counts=True)
    order = sizes[1].argsort(stable=True)
    begin = sizes[2].cumsum(0) - sizes[2]
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    group = sizes[1][index]
    size = sizes[2][group]
    step = 1 + (torch.rand(len(index), generator=generator, dtype=torch.float64) * (size - 1)).long()
    return order[begin[group] + (position[index] - begin[group] + step) % size]


def lengths(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (N, W) on the CPU -> their lengths (N,) float32, at least 1e-12."""
    blocks = vectors.split(max(1, BLOCK_BYTES // (4 * vectors.shape[1])))
    length = torch.cat([block.float().norm(dim=1) for block in blocks])
    if bad := int((~length.isfinite()).sum()):
        raise ValueError(f"{bad} of {len(vectors)} vectors are not finite; the model has diverged")
    return length.clamp(min=1e-12)


def pair_products(first: torch.Tensor, second: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """Vectors (N, W) and (M, W) -> inner products (P,) float32 of first[i] and second[j], PAIR_BYTES at a time."""
    block = max(1, PAIR_BYTES // (4 * first.shape[1]))
    parts = [torch.linalg.vecdot(first[a].float(), second[b].float()) for a, b in zip(i.split(block), j.split(block))]
    return torch.cat(parts) if parts else torch.empty(0)


def csls(similarity: torch.Tensor, first_bank: torch.Tensor, second_bank: torch.Tensor, k: int = 10) -> torch.Tensor:
    """Cross-domain similarity local scaling (Conneau et al. 2018, equation 3): 2 cos(a, b) - r(a) - r(b).

    first_bank, second_bank (..., M): cosines of a and of b with a bank of M vectors; r is the mean of the k highest.
    Lowers the similarity of vectors that are close to everything; the result lies in [-4, 4].
    """
    k = min(k, first_bank.shape[-1])
    return 2 * similarity - first_bank.topk(k).values.mean(-1) - second_bank.topk(k).values.mean(-1)
