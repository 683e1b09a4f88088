"""Retrieval metrics of embeddings with class labels.

vectors (N, D), labels (N,) -> pair ROC-AUC, precision@1, MAP@R, overall and per class
"""

from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import roc_auc_score

MAX_PAIRS = 4_000_000  # pairs for the AUC; of more a sample with a fixed seed


def retrieval_metrics(vectors: torch.Tensor, labels: torch.Tensor, per_class: bool = False) -> dict:
    """Cosine retrieval of every vector among all others.

    auc: probability that a same-class pair is more similar than an other-class pair, ties counting half.
    precision_at_1, map_at_r: of Musgrave et al. 2020 (arXiv 2003.08505), by pytorch-metric-learning; a vector whose
    class has no other member is no query. Returns {} if no class has two members, or there is only one class.
    """
    labels = torch.as_tensor(labels)
    classes, members = labels.unique(return_counts=True)
    if len(classes) < 2 or members.max() < 2:
        return {}
    # Neighbours at equal distance come in index order, which is the order of classes on disk: without this shuffle a
    # model that maps everything to one point would look perfect.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(vectors.float().cpu(), dim=1)[order]
    shuffled = labels.cpu()[order]
    names = {"precision_at_1": "precision_at_1", "mean_average_precision_at_r": "map_at_r"}
    calculator = AccuracyCalculator(
        include=tuple(names), k="max_bin_count", return_per_class=per_class, device=torch.device("cpu")
    )
    accuracy = calculator.get_accuracy(unit, shuffled)
    values = {ours: np.atleast_1d(accuracy[theirs]) for theirs, ours in names.items()}
    metrics: dict[str, Any] = {
        "auc": pair_auc(unit, shuffled),
        **{name: float(value.mean()) for name, value in values.items()},
    }
    if per_class:
        metrics["per_class"] = {
            label: {name: float(value[row]) for name, value in values.items()}
            for row, label in enumerate(classes[members > 1].tolist())
        }
    return metrics


def pair_auc(unit: torch.Tensor, labels: torch.Tensor) -> float:
    """Unit vectors (N, D) -> ROC-AUC of 'same class' by cosine over all pairs i < j, or MAX_PAIRS drawn at random."""
    count = len(labels)
    if count * (count - 1) // 2 <= MAX_PAIRS:
        first, second = torch.triu_indices(count, count, offset=1)
    else:
        generator = torch.Generator().manual_seed(0)
        first = torch.randint(count, (MAX_PAIRS,), generator=generator)
        second = (first + torch.randint(1, count, (MAX_PAIRS,), generator=generator)) % count
    similarity = torch.cat([(unit[a] * unit[b]).sum(1) for a, b in zip(first.split(2**18), second.split(2**18))])
    return float(roc_auc_score((labels[first] == labels[second]).numpy(), similarity.numpy()))


def csls(similarity: torch.Tensor, first_bank: torch.Tensor, second_bank: torch.Tensor, k: int = 10) -> torch.Tensor:
    """Cross-domain similarity local scaling (Conneau et al. 2018, equation 3): 2 cos(a, b) - r(a) - r(b).

    first_bank, second_bank (..., M): cosines of a and of b with a bank of M vectors; r is the mean of the k highest.
    Lowers the similarity of vectors that are close to everything; the result lies in [-4, 4].
    """
    k = min(k, first_bank.shape[-1])
    return 2 * similarity - first_bank.topk(k).values.mean(-1) - second_bank.topk(k).values.mean(-1)
