"""Classification by a few reference images per style, without training the encoder.

style vectors (N, S), unit length, style_ids (N,) of the references
  -> draw_references          random references, the other images are queries
  -> prototype_similarity     cosines of queries (Q, S) with the K prototypes: normalised means (Snell et al. 2017)
  -> leave_one_out_accuracy   of the prototypes on the references themselves
  -> fit_probe                regularised logistic regression, and its cross-validated accuracy
"""

import warnings

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict

# One or two images of each style are what few-shot means; scikit-learn warns that the styles might be real numbers.
warnings.filterwarnings("ignore", "The number of unique classes is greater")

PROBE_C = (0.1, 1.0, 10.0, 100.0, 1000.0)  # inverse strengths of regularisation to choose from
PROBE_FOLDS = 5  # at most; fewer where a style has fewer images
PROBE_MIN_IMAGES = 3  # of each style: two folds inside each training part of two images


def draw_references(style_ids: torch.Tensor, images: int, generator: torch.Generator) -> torch.Tensor:
    """style_ids (N,) -> (N,) bool: `images` random references of each style, fewer where no other would be left."""
    chosen = torch.zeros(len(style_ids), dtype=torch.bool)
    for style in style_ids.unique():
        members = (style_ids == style).nonzero()[:, 0]
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: min(images, len(members) - 1)]]] = True
    return chosen


def prototype_similarity(
    queries: torch.Tensor, references: torch.Tensor, style_ids: torch.Tensor, own: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """-> cosines (Q, K) of queries with prototypes, images behind each prototype (Q, K).

    own (Q,): the reference that is the query itself, -1 for none; the query's prototypes exclude it. Where
    nothing is left, count and cosine are 0.
    """
    counts = torch.bincount(style_ids)  # (K,)
    sums = torch.zeros(len(counts), references.shape[1]).index_add_(0, style_ids, references)
    similarity = queries @ F.normalize(sums, dim=1).T
    counts = counts.expand_as(similarity).clone()
    if own is not None:
        rows = (own >= 0).nonzero()[:, 0]
        styles, vectors = style_ids[own[rows]], references[own[rows]]
        counts[rows, styles] -= 1
        remaining = F.normalize(sums[styles] - vectors, dim=1) * (counts[rows, styles, None] > 0)
        similarity[rows, styles] = (queries[rows] * remaining).sum(1)
    return similarity, counts


def leave_one_out_accuracy(references: torch.Tensor, style_ids: torch.Tensor) -> float | None:
    """Share of images whose own style has the nearest prototype of the others, mean over styles of at least two images.

    None if there is no such style.
    """
    similarity, counts = prototype_similarity(references, references, style_ids, torch.arange(len(references)))
    testable = counts.gather(1, style_ids[:, None])[:, 0] > 0
    if not testable.any():
        return None
    nearest = similarity.masked_fill(counts == 0, -torch.inf).argmax(1)
    return mean_over_styles((nearest == style_ids)[testable], style_ids[testable])


def fit_probe(references: torch.Tensor, style_ids: torch.Tensor, seed: int = 0) -> tuple[GridSearchCV, float]:
    """Linear probe with C chosen by cross-validated log loss -> fitted probe, accuracy, mean over styles.

    The accuracy is that of nested cross-validation: the images it is measured on chose neither weights nor C. Every
    style needs PROBE_MIN_IMAGES.
    """
    vectors, labels = references.numpy(), style_ids.numpy()
    fewest = int(torch.bincount(style_ids).min())
    outer = min(PROBE_FOLDS, fewest)

    def search(images: int) -> GridSearchCV:
        folds = StratifiedKFold(min(PROBE_FOLDS, images), shuffle=True, random_state=seed)
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        return GridSearchCV(model, {"C": PROBE_C}, scoring="neg_log_loss", cv=folds)

    held_out = StratifiedKFold(outer, shuffle=True, random_state=seed)
    predicted = cross_val_predict(search(fewest - -(-fewest // outer)), vectors, labels, cv=held_out)
    hits = torch.from_numpy(predicted) == style_ids
    return search(fewest).fit(vectors, labels), mean_over_styles(hits, style_ids)


def mean_over_styles(values: torch.Tensor, style_ids: torch.Tensor) -> float:
    """Mean of the means of each style's images, so that every style counts alike; values, style_ids (N,)."""
    images = torch.bincount(style_ids)
    means = torch.bincount(style_ids, values.double()) / images
    return float(means[images > 0].mean())
