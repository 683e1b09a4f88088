"""What is measured of a model on a folder of pairs, each number beside its chance level.

rankings, texts, vectors, class names -> plain dicts of numbers, in percent where they are shares
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clip.embed import Encoded
from clip.model import CLIPModel
from clip.probes import linear_probe, zero_shot
from common.metrics.bootstrap import bootstrap_means, interval_of
from common.metrics.retrieval import RECALL_AT, Ranking, chance_ranks, chance_recall, rank_scores
from common.metrics.text import text_scores

COMPARED_TEXTS = 2000  # images whose found text BLEU and ROUGE look at; of more, so many are drawn


def measure_retrieval(images: Ranking, texts: Ranking, image_of_text: torch.Tensor) -> dict[str, dict[str, Any]]:
    """{'i2t_r1': {'value', 'interval', 'chance'}, ..., 'rsum': ..., 'i2t_mean_rank': {'value', 'chance'}, ...}.

    Intervals are of resampled images, each with all its texts.
    """
    numbers: dict[str, dict[str, Any]] = {
        name: {"value": value} for name, value in rank_scores(images.rank, texts.rank).items()
    }
    columns, names = [], []
    for direction, ranking, clusters in (("i2t", images, None), ("t2i", texts, image_of_text.numpy())):
        mean, median = chance_ranks(ranking.true_count, ranking.gallery)
        numbers[f"{direction}_mean_rank"]["chance"], numbers[f"{direction}_median_rank"]["chance"] = mean, median
        for k in RECALL_AT:
            numbers[f"{direction}_r{k}"]["chance"] = chance_recall(ranking.true_count, ranking.gallery, k)
            columns.append((100 * (ranking.rank <= k).numpy(), clusters))
            names.append(f"{direction}_r{k}")
    means, count = bootstrap_means(columns), len(images.rank)  # means (samples, 6)
    for name, values in zip(names, means.T):
        numbers[name]["interval"] = list(interval_of(values, count, top=100))
    numbers["rsum"]["interval"] = list(interval_of(means.sum(1), count, top=600))
    numbers["rsum"]["chance"] = sum(numbers[name]["chance"] for name in names)
    return numbers


def measure_found_texts(images: Ranking, encoded: Encoded) -> dict[str, Any]:
    """BLEU and ROUGE of the text that each image finds first, against the image's own texts; chance: a random text."""
    own: list[list[str]] = [[] for _ in encoded.image_vectors]
    for owner, text in zip(encoded.image_of_text.tolist(), encoded.texts):
        own[owner].append(text)
    asked = draw(list(range(len(own))), COMPARED_TEXTS)
    references = [own[index] for index in asked]
    random = np.random.default_rng(0).integers(len(encoded.texts), size=len(asked))
    found = text_scores([encoded.texts[int(images.found[index])] for index in asked], references)
    chance = text_scores([encoded.texts[index] for index in random], references)
    return {"images": len(asked), **{name: {"value": found[name], "chance": chance[name]} for name in found}}


def measure_classes(
    model: CLIPModel,
    vectors: torch.Tensor,
    labels: Sequence[str],
    fit_vectors: torch.Tensor | None,
    fit_labels: Sequence[str],
    templates: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """Vectors (N, D) and class names of images, '' = not known -> {'zero_shot', 'linear_probe'}, each its numbers or
    {'not_measured': why}. fit_vectors (F, D), fit_labels: what the linear probe is fitted to; None = a part of the N.
    """
    asked = [index for index, label in enumerate(labels) if label]
    names = [labels[index] for index in asked]
    if len(set(names)) < 2:
        why = f"these images have {len(set(names))} classes; two or more are needed"
        return {"zero_shot": {"not_measured": why}, "linear_probe": {"not_measured": why}}
    facts = {"images": len(asked), "images_without_class": len(labels) - len(asked)}
    result = {"zero_shot": facts | zero_shot(model, vectors[asked], names, device, templates)}
    vectors, training = vectors[asked], None
    if fit_vectors is not None:
        fit = [index for index, label in enumerate(fit_labels) if label]
        training = [False] * len(asked) + [True] * len(fit)
        vectors, names = torch.cat([vectors, fit_vectors[fit]]), [*names, *(fit_labels[index] for index in fit)]
    try:
        result["linear_probe"] = linear_probe(vectors, names, training)
    except ValueError as error:
        result["linear_probe"] = {"not_measured": str(error)}
    return result


def draw(items: list, count: int) -> list:
    """`count` of them at random, always the same ones, in their order; 0 = all."""
    if not 0 < count < len(items):
        return items
    return [items[index] for index in sorted(np.random.default_rng(0).choice(len(items), count, replace=False))]
