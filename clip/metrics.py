"""Metrics of a model on image-text pairs, with chance levels.

rankings, texts -> retrieval, BLEU and ROUGE of the retrieved texts
vectors, class names -> zero-shot: prompts -> class vectors (C, D) -> cosines (N, C) -> accuracy
vectors, class names -> linear probe: logistic regression on some images, tested on the others -> accuracy

Results are plain dicts of numbers, shares in percent.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clip.embed import PairEmbeddings, embed_texts
from clip.model import CLIPModel
from common.metrics.bootstrap import bootstrap_interval, bootstrap_means, interval_of
from common.metrics.retrieval import RECALL_AT, TIE, Ranking, chance_ranks, chance_recall, rank_scores
from common.metrics.text import has_chinese, text_metric_settings, text_metrics

MAX_COMPARED = 2000  # images whose retrieved text is scored by BLEU and ROUGE; of more, a random sample
ENGLISH_TEMPLATES = tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES)  # CLIP's best seven
CHINESE_TEMPLATES = ("{}", "{}的图片。", "一张{}的照片。", "一幅{}的画。")
INVERSE_PENALTIES = tuple(10.0**power for power in range(-4, 3))  # scikit-learn's C, chosen by cross-validation
TEST_SHARE = 0.3  # of each class, where no split is given
MIN_IMAGES = 4  # of a class: two folds of cross-validation need two each, or one is needed for the test


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
    texts, pairs = embeddings.texts, embeddings.pairs
    sampled = sample(range(len(pairs)), MAX_COMPARED)
    references = [list(pairs[index].texts) for index in sampled]
    random = np.random.default_rng(0).integers(len(texts), size=len(sampled))
    scores = text_metrics([texts[int(images.found[index])] for index in sampled], references)
    chance = text_metrics([texts[index] for index in random], references)
    return {
        "images": len(sampled),
        **{name: {"value": scores[name], "chance": chance[name]} for name in scores},
        "settings": text_metric_settings(references),
    }


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
    result: dict[str, dict] = {
        "zero_shot": {
            "images": len(labelled),
            "images_without_class": len(labels) - len(labelled),
            **zero_shot(model, vectors[labelled], names, device, templates),
        }
    }
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


def sample(items: Sequence, count: int) -> Sequence:
    """`count` of them at random, always the same ones, in their order; 0 = all."""
    if not 0 < count < len(items):
        return items
    return [items[index] for index in sorted(np.random.default_rng(0).choice(len(items), count, replace=False))]


def class_vectors(
    model: CLIPModel, classes: Sequence[str], templates: Sequence[str], device: torch.device
) -> torch.Tensor:
    """Names of C classes -> (C, D): the mean of their prompts' unit vectors, normalised again (Radford et al. 2021,
    section 3.1.4). A template holds {} where the class goes."""
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    vectors = embed_texts(model, prompts, device, quiet=True).view(len(classes), len(templates), -1)
    return F.normalize(vectors.mean(1), dim=1)


def zero_shot(
    model: CLIPModel, vectors: torch.Tensor, labels: Sequence[str], device: torch.device, templates: Sequence[str] = ()
) -> dict:
    """Unit vectors (N, D), a class name each -> top-1 and, of more than 5 classes, top-5 accuracy in percent.

    A class that ties with the true one ranks before it. templates: by default those of the class names' language.
    """
    classes = sorted(set(labels))
    templates = templates or (CHINESE_TEMPLATES if has_chinese(classes) else ENGLISH_TEMPLATES)
    cosines = vectors @ class_vectors(model, classes, templates, device).T  # (N, C)
    targets = torch.tensor([classes.index(label) for label in labels])
    ranks = (cosines >= cosines.gather(1, targets[:, None]) - TIE).sum(1)  # 1 = first; counts the true class itself
    recalls = [(ranks[targets == index] == 1).double().mean().item() for index in range(len(classes))]
    return {
        "classes": len(classes),
        "templates": list(templates),
        **{f"top{k}": accuracy(ranks <= k, len(classes), k) for k in (1, 5) if k == 1 or len(classes) > k},
        "largest_class": 100 * max(Counter(labels).values()) / len(labels),
        "top1_mean_of_classes": 100 * float(np.mean(recalls)),
    }


def accuracy(correct: Sequence[bool], classes: int, k: int = 1) -> dict[str, float | list[float]]:
    """Top-k accuracy in percent with its 95 % interval and chance level."""
    percent = 100 * np.asarray(correct, float)
    return {
        "value": float(percent.mean()),
        "interval": list(bootstrap_interval(percent, top=100)),
        "chance": 100 * min(k, classes) / classes,
    }


def linear_probe(
    vectors: torch.Tensor, labels: Sequence[str], training: Sequence[bool] | None = None, seed: int = 0
) -> dict:
    """Vectors (N, D) and their classes -> accuracy in percent on images that were not fitted, with its interval.

    training (N,): the images to fit; None draws TEST_SHARE of each class for the test. Classes with fewer than
    MIN_IMAGES images to fit (with `training`) or in all are skipped and named. The penalty is chosen by
    cross-validation among the images to fit. ValueError where fewer than two classes remain.
    """
    labels = np.asarray(labels)
    is_training = np.ones(len(labels), bool) if training is None else np.asarray(training)
    counts = Counter(labels[is_training].tolist())
    rare = sorted({label for label in labels.tolist() if counts[label] < MIN_IMAGES})
    usable = np.flatnonzero(~np.isin(labels, rare))
    classes = len(set(labels[usable].tolist()))
    if classes < 2:
        raise ValueError(f"fewer than two classes have {MIN_IMAGES} images to fit to")
    if training is None:
        test_size = max(round(TEST_SHARE * len(usable)), classes)  # at least one image of each class
        fit, test = train_test_split(usable, test_size=test_size, random_state=seed, stratify=labels[usable])
    else:
        fit, test = usable[is_training[usable]], usable[~is_training[usable]]
    if not len(test):
        raise ValueError("no image of these classes is left to test")
    features = vectors.double().numpy()
    by_size = Counter(labels[fit].tolist()).most_common()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": INVERSE_PENALTIES},
        cv=StratifiedKFold(min(5, by_size[-1][1]), shuffle=True, random_state=seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest penalties, which separate small sets
        search.fit(features[fit], labels[fit])
    return {
        "classes": len(by_size),
        "images_to_fit": len(fit),
        "test_images": len(test),
        "skipped_classes": rare,
        "C": search.best_params_["logisticregression__C"],
        "top1": accuracy(search.predict(features[test]) == labels[test], len(by_size)),
        "largest_class": 100 * float(np.mean(labels[test] == by_size[0][0])),
    }
