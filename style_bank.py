"""Calibration of style similarities: from a cosine to the probability of one style.

validation vectors (N, S), style_ids (N,)
  -> reference_statistics   bank of vectors, quantiles of cosines, calibration; train.py writes them into a model
  -> style_probabilities    cosines with the prototypes of K styles (Q, K) -> probability of each and of none (Q, K + 1)

The log-odds are a * cosine + b * log(images of the prototype) + c, since the mean of many images is closer to any image
of its style than a single image is. CSLS has no part in them: it separates known domains slightly better, but where the
bank holds nothing like the images at hand it finds too many of one style.
"""

from math import log
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression

from few_shot import draw_references, prototype_similarity

BANK_SIZE = 1000  # vectors kept
PROTOTYPE_IMAGES = (1, 2, 4, 8, 16)  # that the calibration is fitted on
DRAWS = 3  # of prototypes of each size
NEIGHBOURS = 10  # in the bank, for closeness
NONE_PRIOR = 0.5  # probability of "none of these" before any comparison; the styles share the rest equally
FAR = 0.1  # share of validation images that count as far from the others
CERTAINTIES = {"very likely": 0.95, "probably": 0.75, "undecided, perhaps": 0.0}  # lowest probability of each


def reference_statistics(style: torch.Tensor, style_ids: list[int], unseen: bool) -> dict[str, Any]:
    """Statistics of validation vectors (N, S), unit length; {} without pairs of one style and of different ones.

    unseen: training has seen none of the styles, so that the statistics hold for new styles.
    """
    generator = torch.Generator().manual_seed(0)  # the global one belongs to training
    drawn = torch.randperm(len(style), generator=generator)[:BANK_SIZE]
    bank = style[drawn]
    labels = torch.tensor(style_ids)[drawn].unique(return_inverse=True)[1]
    same, once = labels[:, None] == labels, torch.ones(len(bank), len(bank), dtype=torch.bool).triu(1)
    if not (same & once).any() or same.all():
        return {}
    cosines, steps = bank @ bank.T, torch.linspace(0, 1, 1001)
    # A user's style is rarely in the bank, so an image is compared with other styles alone.
    return {
        "bank": bank,
        "same_style_quantiles": torch.quantile(cosines[same & once], steps),
        "other_style_quantiles": torch.quantile(cosines[~same & once], steps),
        "far_below": float(torch.quantile(_closeness(cosines.masked_fill(same, -1)), FAR)),
        "calibration": _fit_calibration(bank, labels, generator),
        "styles": len(labels.unique()),
        "unseen_styles": unseen,
    }


def _fit_calibration(bank: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
    """Logistic regression of "query and prototype are of one style", both answers with equal weight."""
    features, answers, weights = [], [], []
    for images in PROTOTYPE_IMAGES:
        for _ in range(DRAWS):
            chosen = draw_references(labels, images, generator)
            similarity, counts = prototype_similarity(bank[~chosen], bank[chosen], labels[chosen])
            same = labels[~chosen, None] == torch.arange(similarity.shape[1])
            exists = counts > 0
            same, other = same & exists, ~same & exists
            features.append(torch.stack([similarity, counts.log()], -1)[exists])
            answers.append(same[exists])
            weights.append((same / same.sum() + other / other.sum())[exists])
    weight = torch.cat(weights)
    # With weights that add up to the images, few images that are easily separated do not make anything certain.
    model = LogisticRegression(C=100).fit(
        torch.cat(features).numpy(),
        torch.cat(answers).numpy(),
        sample_weight=(weight * len(bank) / weight.sum()).numpy(),
    )
    (slope, count_slope), intercept = model.coef_[0].tolist(), float(model.intercept_[0])
    return {"slope": slope, "count_slope": count_slope, "intercept": intercept}


def style_probabilities(similarity: torch.Tensor, counts: torch.Tensor, calibration: dict[str, float]) -> torch.Tensor:
    """Cosines with K prototypes (Q, K), images of each (Q, K) -> probabilities (Q, K + 1), the last of none of them.

    Prototypes of 0 images have probability 0. With K = 1 and one image: that two images are of one style.
    """
    log_ratio = calibration["slope"] * similarity + calibration["count_slope"] * counts.log() + calibration["intercept"]
    scores = log_ratio.masked_fill(counts == 0, -torch.inf) + log((1 - NONE_PRIOR) / similarity.shape[1])
    return torch.cat([scores, torch.full((len(scores), 1), log(NONE_PRIOR))], 1).softmax(1)


def percentile(values: torch.Tensor, quantiles: torch.Tensor) -> torch.Tensor:
    """Share of a distribution below each value, 0..100; quantiles: equally spaced, of 0 to 1."""
    return (100 * torch.searchsorted(quantiles, values.contiguous()) / (len(quantiles) - 1)).clamp(0, 100)


def verdict(answers: dict[str, float]) -> str:
    """{answer: probability} -> the most probable answer and how certain it is, in words."""
    best = max(answers, key=lambda answer: answers[answer])
    return f"{next(words for words, lowest in CERTAINTIES.items() if answers[best] >= lowest)} {best}"


def calibration_notes(vectors: torch.Tensor, statistics: dict[str, Any]) -> list[str]:
    """Lines on how far probabilities of images (N, S) can be trusted."""
    styles = statistics["styles"]
    if statistics["unseen_styles"]:
        lines = [f"calibrated on {styles} styles that training has not seen"]
    else:
        lines = [f"calibrated on held-out images of {styles} training styles; less certain for others"]
    far = int((_closeness(vectors @ statistics["bank"].T) < statistics["far_below"]).sum())
    if far > 2 * FAR * len(vectors):
        lines.append(f"{far} of {len(vectors)} images unlike all of those: probabilities may be wrong")
    return lines


def _closeness(cosines: torch.Tensor) -> torch.Tensor:
    """Cosines with a bank (N, M) -> (N,), the mean of the highest."""
    return cosines.topk(min(NEIGHBOURS, cosines.shape[1])).values.mean(1)
