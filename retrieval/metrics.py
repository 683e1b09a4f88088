"""Retrieval metrics of ranked lists.

rows (Q, K) of the gallery, best first -> without the query itself and its duplicates -> relevant (Q, K)
    -> values (Q,) of Top-K, AP, R-precision, AP@R -> means over all queries and over those that can be answered
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from common.metrics.bootstrap import bootstrap_interval
from common.metrics.retrieval import chance_recall


class LabelledImages(NamedTuple):
    """The images of one side of a search."""

    labels: Sequence[str]
    digests: Sequence[str]  # of the files' bytes; '' = unknown
    paths: Sequence[str]  # absolute; '' = unknown


class GroundTruth:
    """Which gallery images are relevant for which query, and which are its duplicates.

    Duplicates, files of the query's path or bytes, are treated as what revisitop labels junk (Radenovic et al. 2018):
    neither right nor wrong; the list is read as if they were not there.
    """

    def __init__(self, queries: LabelledImages, gallery: LabelledImages):
        (self.label, self.gallery_label), (self.digest, self.gallery_digest), (self.path, self.gallery_path) = (
            _numbered(*sides) for sides in zip(queries, gallery)
        )
        self.true_count = np.bincount(self.gallery_label, minlength=self.label.max() + 1)[self.label]  # relevant images
        self.duplicates = np.zeros(len(self.label), int)  # gallery images that are duplicates of each query
        by_digest, by_path = _equal_rows(self.digest, self.gallery_digest), _equal_rows(self.path, self.gallery_path)
        for query, rows in enumerate(map(np.union1d, by_digest, by_path)):
            self.duplicates[query] = len(rows)
            self.true_count[query] -= (self.gallery_label[rows] == self.label[query]).sum()

    def relevant(self, rows: np.ndarray, depth: int, first: int = 0) -> np.ndarray:
        """rows (Q, K) for the queries from number `first` on, -1 = none -> (Q, depth) bool, duplicates removed.

        K: at least depth + the most duplicates that a query has, or the whole gallery.
        """
        query, valid = np.arange(first, first + len(rows))[:, None], rows >= 0
        same_bytes = (self.gallery_digest[rows] == self.digest[query]) & (self.digest[query] >= 0)
        same_path = (self.gallery_path[rows] == self.path[query]) & (self.path[query] >= 0)
        duplicate = (same_bytes | same_path) & valid
        relevant = (self.gallery_label[rows] == self.label[query]) & valid & ~duplicate
        affected = duplicate.any(1)
        order = np.argsort(duplicate[affected], axis=1, kind="stable")  # duplicates to the end, the rest as it was
        relevant[affected] = np.take_along_axis(relevant[affected], order, 1)
        return relevant[:, :depth]


def query_values(relevant: np.ndarray, true_count: np.ndarray, top_k: Sequence[int]) -> dict[str, np.ndarray]:
    """relevant (Q, K) bool, relevant images in the gallery (Q,) -> for each metric a value (Q,); 0 if there are none.

    Top-K: is any of the first K relevant. mAP: mean over the relevant images of the precision at each one's rank, not
    revisitop's trapezoids, which are lower; those beyond K count as never found. R-precision: share of relevant ones
    among the first R = true_count. MAP@R: precision at the relevant ones among the first R, summed and divided by R
    (Musgrave et al. 2020).
    """
    values = {f"Top-{k}": relevant[:, :k].any(1).astype(float) for k in top_k}
    rank = np.arange(1, relevant.shape[1] + 1)
    precision = np.where(relevant, relevant.cumsum(1) / rank, 0.0)
    within = relevant & (rank <= true_count[:, None])
    total = np.maximum(true_count, 1)
    values["mAP"] = precision.sum(1) / total
    values["R-precision"] = within.sum(1) / total
    values["MAP@R"] = np.where(within, precision, 0.0).sum(1) / total
    return values


def summarise(values: dict[str, np.ndarray], truth: GroundTruth, gallery: int) -> dict:
    """Means over all queries, over those whose class is in the gallery, 95 % intervals of the former, and chance."""
    answerable = truth.true_count > 0
    counts, candidates = torch.from_numpy(truth.true_count), gallery - int(truth.duplicates.min())
    return {
        **{name: float(value.mean()) for name, value in values.items()},
        "answerable": {
            name: float(value[answerable].mean()) if answerable.any() else None for name, value in values.items()
        },
        "coverage": float(answerable.mean()),
        "interval_95": {name: bootstrap_interval(value, top=1.0) for name, value in values.items()},
        "chance": {
            name: chance_recall(counts, candidates, int(name.removeprefix("Top-"))) / 100
            for name in values
            if name.startswith("Top-")
        },
    }


def _numbered(queries: Sequence[str], gallery: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The same number for the same text; '' is -1."""
    texts, numbers = np.unique(np.array([*queries, *gallery], dtype=np.str_), return_inverse=True)
    numbers = np.where(texts[numbers] == "", -1, numbers)
    return numbers[: len(queries)], numbers[len(queries) :]


def _equal_rows(queries: np.ndarray, gallery: np.ndarray) -> list[np.ndarray]:
    """For each query, the gallery rows of the same number; none for -1."""
    order = gallery.argsort(kind="stable")
    first, last = (np.searchsorted(gallery[order], queries, side) for side in ("left", "right"))
    return [order[start:stop] for start, stop in zip(np.where(queries < 0, last, first), last)]
