"""Metrics of a model on image-text pairs, with chance levels.

rankings, texts, vectors, class names -> plain dicts of numbers, shares in percent
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clip.embed import PairEmbeddings
from clip.linear_probe import linear_probe
from clip.model import CLIPModel
from clip.zero_shot import zero_shot
from common.metrics.bootstrap import bootstrap_means, interval_of
from common.metrics.retrieval import RECALL_AT, Ranking, chance_ranks, chance_recall, rank_scores
from common.metrics.text import text_metrics

MAX_COMPARED = 2000  # images whose retrieved text is scored by BLEU and ROUGE; of more, a random sample


def measure_retrieval(images: Ranking, texts: Ranking, image_of_text: torch.Tensor) -> dict[str, dict[str, Any]]:
    """{'i2t_r1': {'value', 'interval', 'chance'}, ..., 'rsum': ..., 'i2t_mean_rank': {'value', 'chance'}, ...}.

    Intervals are over resampled images, each with all its texts.
    """
    metrics: dict[str, dict[str, Any]] = {
        name: {"value": value} for name, value in rank_scores(images.rank, texts.rank).items()
    }
    columns = {}
    for direction, ranking, clusters in (("i2t", images, None), ("t2i", texts, image_of_text.numpy())):
        mean, median = chance_ranks(ranking.true_count, ranking.gallery)
        metrics[f"{direction}_mean_rank"]["chance"], metrics[f"{direction}_median_rank"]["chance"] = mean, median
        for k in RECALL_AT:
            columns[f"{direction}_r{k}"] = (100 * (ranking.rank <= k).numpy(), clusters)
            metrics[f"{direction}_r{k}"]["chance"] = chance_recall(ranking.true_count, ranking.gallery, k)
    means, count = bootstrap_means(list(columns.values())), len(images.rank)  # means (samples, 6)
    for name, values in zip(columns, means.T):
        metrics[name]["interval"] = list(interval_of(values, count, top=100))
    metrics["rsum"]["interval"] = list(interval_of(means.sum(1), count, top=600))
    metrics["rsum"]["chance"] = sum(metrics[name]["chance"] for name in columns)
    return metrics


def measure_retrieved_texts(images: Ranking, embeddings: PairEmbeddings) -> dict[str, Any]:
    """BLEU and ROUGE of the text that each image retrieves first, against its own texts; chance: a random text."""
    texts, own = embeddings.texts, embeddings.texts_of_image
    sampled = sample(list(range(len(own))), MAX_COMPARED)
    references = [own[index] for index in sampled]
    random = np.random.default_rng(0).integers(len(texts), size=len(sampled))
    scores = text_metrics([texts[int(images.found[index])] for index in sampled], references)
    chance = text_metrics([texts[index] for index in random], references)
    return {"images": len(sampled), **{name: {"value": scores[name], "chance": chance[name]} for name in scores}}


def measure_classes(
    model: CLIPModel,
    vectors: torch.Tensor,
    labels: Sequence[str],
    fit_vectors: torch.Tensor | None,
    fit_labels: Sequence[str],
    templates: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """Vectors (N, D) and class names of images, '' = unknown -> {'zero_shot', 'linear_probe'}, each its metrics or
    {'not_measured': reason}. fit_vectors (F, D), fit_labels: images to fit the linear probe to; None = a part of the N.
    """
    labelled = [index for index, label in enumerate(labels) if label]
    names = [labels[index] for index in labelled]
    if len(set(names)) < 2:
        unmeasured = {"not_measured": f"these images have {len(set(names))} classes; two or more are needed"}
        return {"zero_shot": unmeasured, "linear_probe": unmeasured}
    counts = {"images": len(labelled), "images_without_class": len(labels) - len(labelled)}
    result = {"zero_shot": counts | zero_shot(model, vectors[labelled], names, device, templates)}
    vectors, training = vectors[labelled], None
    if fit_vectors is not None:
        fit = [index for index, label in enumerate(fit_labels) if label]
        training = [False] * len(labelled) + [True] * len(fit)
        vectors, names = torch.cat([vectors, fit_vectors[fit]]), [*names, *(fit_labels[index] for index in fit)]
    try:
        result["linear_probe"] = linear_probe(vectors, names, training)
    except ValueError as error:
        result["linear_probe"] = {"not_measured": str(error)}
    return result


def sample(items: list, count: int) -> list:
    """`count` of them at random, always the same ones, in their order; 0 = all."""
    if not 0 < count < len(items):
        return items
    return [items[index] for index in sorted(np.random.default_rng(0).choice(len(items), count, replace=False))]
