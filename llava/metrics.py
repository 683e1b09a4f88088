"""Metrics of scores and keywords.

scores, matching or not -> ROC-AUC, rank correlation, with intervals over images;  texts, keywords -> recall
"""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

import numpy as np
import regex

from common.metrics.bootstrap import interval_of
from common.metrics.text import UNSPACED

RECALL_AT = (1, 5, 10)


def score_quality(
    scores: Sequence[float | None], matching: Sequence[bool], clusters: Sequence[Any] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Whether matching texts score higher than others. Missing and non-finite scores are skipped and counted.

    auc: probability that a matching text scores higher than another, ties counting half; spearman: rank correlation of
    score and match. Both with 95 % intervals over resampled clusters (images); None where one side is empty.
    """
    kept = [index for index, score in enumerate(scores) if score is not None and isfinite(score)]
    values = np.array([scores[index] for index in kept], float)
    match = np.array([matching[index] for index in kept], bool)
    _, owners = np.unique([index if clusters is None else clusters[index] for index in kept], return_inverse=True)
    counts = {"pairs": len(kept), "without_score": len(scores) - len(kept)}
    if match.all() or not match.any():
        return {**counts, "auc": None, "interval": (None, None), "spearman": None, "spearman_interval": (None, None)}
    num_clusters = int(owners.max()) + 1
    (auc,), (spearman,) = rank_agreement(values, match, np.ones((1, len(values))))
    draws = resample_clusters(num_clusters, len(values), seed)
    aucs, spearmans = np.concatenate([rank_agreement(values, match, times[:, owners]) for times in draws], axis=1)
    usable = np.isfinite(aucs)  # both sides were drawn
    return {
        **counts,
        "auc": float(auc),
        "interval": interval_of(aucs[usable], num_clusters, 1.0),
        "spearman": float(spearman),
        "spearman_interval": interval_of(spearmans[usable], num_clusters),
    }


def rank_agreement(values: np.ndarray, match: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,), match (N,), how often each pair was drawn (S, N) -> ROC-AUC (S,), Spearman's correlation (S,).

    Equal scores are one step: its pairs count half for the AUC and share their mean rank. nan where one side is empty;
    a constant score has correlation 0.
    """
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) > 0])
    right = np.add.reduceat((times * match)[:, order], starts, axis=1)  # (S, steps)
    wrong = np.add.reduceat((times * ~match)[:, order], starts, axis=1)
    rights, wrongs = right.sum(1), wrong.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (right * (wrong.cumsum(1) - wrong / 2)).sum(1) / (rights * wrongs)
        both = right + wrong
        total = both.sum(1, keepdims=True)
        rank = both.cumsum(1) - both / 2 - total / 2  # centred
        share = (rights / total[:, 0])[:, None]
        covariance = (rank * (right * (1 - share) - wrong * share)).sum(1)
        spread = np.sqrt((both * rank**2).sum(1) * (total * share * (1 - share))[:, 0])
        spearman = np.where(spread > 0, covariance / spread, 0.0)
    return auc, spearman


def resample_clusters(count: int, rows: int, seed: int, samples: int = 1000) -> Iterator[np.ndarray]:
    """How often each of `count` clusters is drawn, (block, count) at a time, for `rows` values in all."""
    random = np.random.default_rng(seed)
    block = max(1, 2**23 // max(rows, count))
    for start in range(0, samples, block):
        yield random.multinomial(count, np.full(count, 1 / count), size=min(block, samples - start))


def keyword_hits(text: str, keywords: Sequence[str]) -> list[bool]:
    """Which keywords occur on word boundaries: 'cat' is in 'a cat.', not in 'category'. Chinese, Japanese, Thai and the
    like have no boundaries, Korean none behind a word, where its particles stand."""
    return [bool(_keyword_pattern(keyword).search(text)) for keyword in keywords]


def recall_at(text: str, keywords: Sequence[str], k: int) -> float | None:
    """Share of the first k keywords, the most important, that occur in the text; None without keywords."""
    hits = keyword_hits(text, keywords[:k])
    return sum(hits) / len(hits) if hits else None


def _keyword_pattern(keyword: str) -> regex.Pattern[str]:
    """Upper or lower case, spaces of any kind."""
    words = r"\s+".join(map(regex.escape, keyword.split()))
    before = r"(?<!\w)" if regex.match(rf"(?V1)[\w--[{UNSPACED}]]", keyword) else ""
    after = r"(?!\w)" if regex.match(rf"(?V1)[\w--[{UNSPACED}\p{{Hangul}}]]", keyword[-1:]) else ""
    return regex.compile(before + words + after, regex.IGNORECASE)
