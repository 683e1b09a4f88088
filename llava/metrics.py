"""How good are descriptions and scores? One number per question, each checked against a slow way in the tests.

texts, references, keywords, traits -> accuracy, recall, cosine;  scores, matching or not -> AUC, rank correlation
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from common.metrics.bootstrap import interval_of

RECALL_AT = (1, 5, 10)


def score_quality(
    scores: Sequence[float | None], matching: Sequence[bool], clusters: Sequence[Any] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Do texts that match their image score above those that do not? A missing score is left out and counted.

    auc: probability that a matching text scores higher than another, ties counting half; spearman: rank correlation of
    score and match. Both with 95 % intervals from resampled clusters (images); None where one side is empty.
    """
    kept = [place for place, score in enumerate(scores) if score is not None]
    values = np.array([scores[place] for place in kept], float)
    match = np.array([matching[place] for place in kept], bool)
    _, owners = np.unique([place if clusters is None else clusters[place] for place in kept], return_inverse=True)
    facts = {"pairs": len(kept), "without_score": len(scores) - len(kept)}
    if match.all() or not match.any():
        return {**facts, "auc": None, "interval": (None, None), "spearman": None, "spearman_interval": (None, None)}
    count = int(owners.max()) + 1
    (auc,), (spearman,) = rank_agreement(values, match, np.ones((1, len(values))))
    aucs, ranks = (
        np.concatenate(column)
        for column in zip(
            *(rank_agreement(values, match, times[:, owners]) for times in resampled_clusters(count, len(values), seed))
        )
    )
    usable = np.isfinite(aucs)  # both sides were drawn
    return {
        **facts,
        "auc": float(auc),
        "interval": interval_of(aucs[usable], count, 1.0),
        "spearman": float(spearman),
        "spearman_interval": interval_of(ranks[usable], count),
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
        together = (rank * (right * (1 - share) - wrong * share)).sum(1)
        spread = np.sqrt((both * rank**2).sum(1) * (total * share * (1 - share))[:, 0])
        spearman = np.where(spread > 0, together / spread, 0.0)
    return auc, spearman


def resampled_clusters(count: int, rows: int, seed: int, samples: int = 1000) -> Iterator[np.ndarray]:
    """How often each of `count` clusters is drawn, (block, count) at a time, for `rows` values in all."""
    random = np.random.default_rng(seed)
    block = max(1, 2**23 // max(rows, count))
    for start in range(0, samples, block):
        yield random.multinomial(count, np.full(count, 1 / count), size=min(block, samples - start))


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
