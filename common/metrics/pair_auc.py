"""ROC-AUC of pairs from histograms of their similarities: overall, per class, and resampled over classes.

similarity (b, N) of a block of rows with all columns -> counts by bin -> AUC, AUC of each class (C,), AUC (samples,)
"""

import numpy as np
import torch

from common.metrics.bootstrap import bootstrap_weights

OTHER_COLUMNS = 4096  # that each row meets other classes in: a window that moves over a larger matrix
BINS = 2**20  # of all pairs together: the AUC is exact to about 1e-6
CLASS_BINS = 2**12  # of each class; fewer where so many classes would exceed CLASS_CELLS
CLASS_CELLS = 2**23  # 64 MiB in each of two tables
GROUPS = 64  # more classes than this are resampled in so many groups
GROUP_BINS = 2**10
TIE = 1e-6  # cosines closer than this are equal: one product in float32 varies this much with its position in a matrix


class PairHistograms:
    """Counts of same-class and other-class pairs by similarity; a pair (i, j) and a pair (j, i) are two.

    labels (N,): of rows and columns alike, 0, 1, ..., in random order. classes: their number, or 0 for the AUC of all
    pairs alone. The first block sets the range of the bins; what lies outside counts in the last bin of its side.
    """

    def __init__(self, labels: torch.Tensor, classes: int = 0):
        self.labels, self.classes, self.groups = labels, classes, min(classes, GROUPS)
        self.low = self.width = 0.0
        self.pairs = torch.zeros(2, BINS, dtype=torch.float64)  # other, same
        bins = min(CLASS_BINS, CLASS_CELLS // max(classes, 1))
        self.by_class = torch.zeros(2, classes, bins, dtype=torch.float64)  # other, same, by the class of the row
        self.by_groups = torch.zeros(2, self.groups, self.groups, GROUP_BINS, dtype=torch.float64)

    def add(self, start: int, similarity: torch.Tensor) -> None:
        """similarity (b, N): of the rows from `start` on; that of an image with itself is not read."""
        own = self.labels[start : start + len(similarity)]
        first = start % max(1, len(self.labels) - OTHER_COLUMNS)
        same = own[:, None] == self.labels
        other = ~same[:, first : first + OTHER_COLUMNS]
        same.diagonal(start).fill_(False)
        pairs = [list(mask.nonzero(as_tuple=True)) for mask in (other, same)]  # rows, columns
        pairs[0][1] += first
        values = [similarity[rows, columns] for rows, columns in pairs]
        if not self.width:
            found = torch.cat(values)
            self.low = float(found.min())
            self.width = max((float(found.max()) - self.low) / BINS, TIE)
        for kind, (value, (rows, columns)) in enumerate(zip(values, pairs)):
            bins = ((value - self.low) / self.width).long().clamp_(0, BINS - 1)
            _count(self.pairs[kind], bins)
            if self.classes:
                cells = self.by_class.shape[2]
                _count(self.by_class[kind], own[rows] * cells + bins * cells // BINS)
                groups = (own[rows] % GROUPS) * self.groups + self.labels[columns] % GROUPS
                _count(self.by_groups[kind], groups * GROUP_BINS + bins * GROUP_BINS // BINS)

    def auc(self) -> float:
        return float(_auc(self.pairs[1].numpy(), self.pairs[0].numpy()))

    def class_auc(self) -> np.ndarray:
        """(C,): same-class pairs of each class against its pairs with other classes; nan for a class of one."""
        return _auc(self.by_class[1].numpy(), self.by_class[0].numpy())

    def resampled_auc(self) -> np.ndarray:
        """AUC (samples,) of resampled classes; a pair of two classes counts as often as the product of their draws.

        Copies of one class are no pair of other classes, so a draw of a single class has no AUC and is absent.
        """
        found = []
        tables = self.by_groups.flatten(1, 2).float().numpy()  # (2, G^2, bins)
        for drawn in bootstrap_weights(self.groups):  # (rows, G)
            times = (drawn[:, :, None] * drawn[:, None]).astype(np.float32)  # (rows, G, G)
            np.einsum("rgg->rg", times)[:] = drawn
            other, same = (times.reshape(len(drawn), -1) @ table for table in tables)
            found.append(_auc(same.astype(float), other))
        auc = np.concatenate(found)
        return auc[np.isfinite(auc)]


def _count(table: torch.Tensor, cells: torch.Tensor) -> None:
    flat = table.view(-1)
    flat.scatter_add_(0, cells, flat.new_ones(1).expand_as(cells))


def _auc(same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Counts (..., bins) -> (...): the share of other-class pairs below a same-class pair, half of those in its bin."""
    below = np.cumsum(other, -1, dtype=float) - other / 2
    with np.errstate(invalid="ignore"):
        return (same * below).sum(-1) / (same.sum(-1) * other.sum(-1))
