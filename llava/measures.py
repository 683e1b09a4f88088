"""How good are descriptions and scores? One number per question, each checked against a slow way in the tests.

texts, references, keywords, traits -> accuracy, recall, cosine;  scores, matching or not -> AUC, rank correlation
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from common.bootstrap import interval_of

RECALL_AT = (1, 5, 10)


def score_quality(
    scores: Sequence[float | None], matching: Sequence[bool], clusters: Sequence[Any] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Do texts that match their image score above those that do not? A missing score is left out and counted.

    auc: probability that a matching text scores higher than another, ties counting half, with a 95 % interval from
    resampled clusters (images); spearman: rank correlation of score and match, ties given their mean rank.
    """
    kept = [place for place, score in enumerate(scores) if score is not None]
    values = np.array([scores[place] for place in kept], float)
    match = np.array([matching[place] for place in kept], bool)
    owners = np.array([place if clusters is None else clusters[place] for place in kept])
    facts = {"pairs": len(kept), "without_score": len(scores) - len(kept)}
    if match.all() or not match.any():
        return {**facts, "auc": None, "interval": (None, None), "spearman": None, "spearman_interval": (None, None)}
    drawn = resampled(owners, seed)
    found = [(float(roc_auc_score(match[rows], values[rows])), spearman(values[rows], match[rows]))
             for rows in drawn if 0 < match[rows].sum() < len(rows)]  # fmt: skip
    aucs, ranks = (np.array(column) for column in zip(*found))
    count = len(np.unique(owners))
    return {
        **facts, "auc": float(roc_auc_score(match, values)), "interval": interval_of(aucs, count, 1.0),
        "spearman": spearman(values, match), "spearman_interval": interval_of(ranks, count),
    }  # fmt: skip


def spearman(values: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation, 0 where one side is constant."""
    first, second = rankdata(values), rankdata(other)
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) and np.ptp(second) else 0.0


def resampled(owners: np.ndarray, seed: int, samples: int = 1000) -> list[np.ndarray]:
    """Rows of clusters drawn with replacement, `samples` times."""
    names, of = np.unique(owners, return_inverse=True)
    members = [np.flatnonzero(of == number) for number in range(len(names))]
    random = np.random.default_rng(seed)
    return [
        np.concatenate([members[one] for one in random.integers(len(names), size=len(names))]) for _ in range(samples)
    ]


def keyword_hits(text: str, keywords: Sequence[str]) -> list[bool]:
    """Which keywords occur on word boundaries: 'cat' is in 'a cat.', not in 'category'; Chinese has no boundaries."""
    return [_occurs(keyword, text) for keyword in keywords]


def recall_at(text: str, keywords: Sequence[str], k: int) -> float | None:
    """Share of the first k keywords, the most important, that occur in the text; None without keywords."""
    hits = keyword_hits(text, keywords[:k])
    return sum(hits) / len(hits) if hits else None


def _occurs(word: str, text: str) -> bool:
    return _pattern(word).search(text) is not None


def _pattern(word: str) -> re.Pattern[str]:
    """Words in any case, spaces of any kind; a boundary only where the word begins or ends with a letter or digit that
    is written with boundaries."""
    bounded = r"[^\W\u3040-\u30ff\u3400-\u9fff]"
    inner = r"\s+".join(map(re.escape, word.split()))
    before = r"(?<!\w)" if re.match(bounded, word) else ""
    after = r"(?!\w)" if re.match(bounded, word[-1:]) else ""
    return re.compile(before + inner + after, re.IGNORECASE)
