"""How good are ranked lists?

places (Q, K) in the gallery, best first -> without the query itself and its copies -> relevant (Q, K)
    -> values (Q,) of Top-K, AP, R-precision, AP@R -> means over all queries and over those that can be answered
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from common.metrics.bootstrap import bootstrap_interval
from common.metrics.retrieval import chance_recall


class Images(NamedTuple):
    """One side of a search: what is known of each image."""

    labels: Sequence[str]
    digests: Sequence[str]  # of the files' bytes; '' = not known
    paths: Sequence[str]  # absolute


class GroundTruth:
    """Which gallery image is right, wrong, or left out for which query.

    Left out, as what is labelled junk in revisitop (Radenovic et al. 2018): a file of the query's path or bytes is
    neither right nor wrong; the list is read as if it were not there.
    """

    def __init__(self, queries: Images, gallery: Images):
        (self.label, self.gallery_label), (self.digest, self.gallery_digest), (self.path, self.gallery_path) = (
            _numbers(ours, theirs) for ours, theirs in zip(queries, gallery)
        )
        self.true_count = np.bincount(self.gallery_label, minlength=self.label.max() + 1)[self.label]  # right answers
        self.copies = np.zeros(len(self.label), int)  # gallery images left out for each query
        places_of: dict[tuple[str, int], list[int]] = {}
        for place, (digest, path) in enumerate(zip(self.gallery_digest, self.gallery_path)):
            places_of.setdefault(("digest", digest), []).append(place)
            places_of.setdefault(("path", path), []).append(place)
        for query, (digest, path) in enumerate(zip(self.digest, self.path)):
            same = places_of.get(("digest", digest), []) if digest >= 0 else []
            places = np.array([*{*same, *places_of.get(("path", path), [])}], int)
            self.copies[query] = len(places)
            self.true_count[query] -= (self.gallery_label[places] == self.label[query]).sum()

    def relevant(self, places: np.ndarray, depth: int, first: int = 0) -> np.ndarray:
        """places (Q, K) of the queries from number `first` on, -1 = nothing found -> (Q, depth) bool, copies taken out.

        K: at least depth + the most copies that a query has, or the whole gallery.
        """
        query = np.arange(first, first + len(places))[:, None]
        found = places >= 0
        same = (self.gallery_digest[places] == self.digest[query]) & (self.digest[query] >= 0)
        copy = (same | (self.gallery_path[places] == self.path[query])) & found
        right = (self.gallery_label[places] == self.label[query]) & found & ~copy
        held = copy.any(1)
        order = np.argsort(copy[held], axis=1, kind="stable")  # copies to the end, the rest as it was
        right[held] = np.take_along_axis(right[held], order, 1)
        return right[:, :depth]


def query_values(relevant: np.ndarray, true_count: np.ndarray, top_k: Sequence[int]) -> dict[str, np.ndarray]:
    """relevant (Q, K) bool, right answers in the gallery (Q,) -> a value (Q,) for each measure; 0 where there are none.

    Top-K: is any of the first K right. mAP: mean over the right answers of the precision at each one's rank; those
    beyond K count as never found. R-precision: share of right ones among the first R = true_count. MAP@R: precision at
    the right ones among the first R, summed and divided by R (Musgrave et al. 2020).
    """
    values = {f"Top-{k}": relevant[:, :k].any(1).astype(float) for k in top_k}
    rank = np.arange(1, relevant.shape[1] + 1)
    precision = np.where(relevant, relevant.cumsum(1) / rank, 0.0)
    within = relevant & (rank <= true_count[:, None])
    asked = np.maximum(true_count, 1)
    values["mAP"] = precision.sum(1) / asked
    values["R-precision"] = within.sum(1) / asked
    values["MAP@R"] = np.where(within, precision, 0.0).sum(1) / asked
    return values


def summarise(values: dict[str, np.ndarray], truth: GroundTruth, gallery: int) -> dict:
    """Means over all queries, over those whose class is in the gallery, 95 % intervals of the former, and chance."""
    answerable = truth.true_count > 0
    whole = {name: float(value.mean()) for name, value in values.items()}
    some = {name: float(value[answerable].mean()) if answerable.any() else None for name, value in values.items()}
    counts, gallery = torch.from_numpy(truth.true_count), gallery - int(truth.copies.min())
    chance = {
        name: chance_recall(counts, gallery, int(name.removeprefix("Top-"))) / 100
        for name in values
        if name.startswith("Top-")
    }
    return {
        **whole,
        "answerable": some,
        "coverage": float(answerable.mean()),
        "interval_95": {name: bootstrap_interval(value, top=1.0) for name, value in values.items()},
        "chance": chance,
    }


def _numbers(ours: Sequence[str], theirs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The same number for the same text; '' is -1."""
    texts, numbers = np.unique(np.array([*ours, *theirs], dtype=np.str_), return_inverse=True)
    numbers = np.where(texts[numbers] == "", -1, numbers)
    return numbers[: len(ours)], numbers[len(ours) :]
