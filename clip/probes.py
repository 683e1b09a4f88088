"""What do the vectors of images know about classes that nobody named in training?

image vectors (N, D), labels (N words)
  -> zero_shot      nearest of the class names' own vectors, which the text tower makes of prompts
  -> linear_probe   logistic regression on a part of the images, asked about the rest
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clip.embed import encode_texts
from clip.model import CLIPModel
from common.metrics.bootstrap import bootstrap_interval
from common.metrics.retrieval import TIE
from common.metrics.text import has_chinese

ENGLISH_TEMPLATES = tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES)  # CLIP's best seven
CHINESE_TEMPLATES = ("{}", "{}的图片。", "一张{}的照片。", "一幅{}的画。")
INVERSE_PENALTIES = tuple(10.0**power for power in range(-4, 3))  # scikit-learn's C, searched over
TEST_SHARE = 0.3  # of each class, where no split is given
FEWEST = 4  # images of a class that the probe asks for: two folds of a search need two, and one is left to ask about


def class_vectors(
    model: CLIPModel, classes: Sequence[str], templates: Sequence[str], device: torch.device
) -> torch.Tensor:
    """Words of C classes -> (C, D): the mean of their prompts' unit vectors, normalised again (Radford et al. 2021,
    section 3.1.4). A template holds {} where the class goes."""
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    vectors = encode_texts(model, prompts, device, quiet=True).view(len(classes), len(templates), -1)
    return F.normalize(vectors.mean(1), dim=1)


def zero_shot(
    model: CLIPModel, vectors: torch.Tensor, labels: Sequence[str], device: torch.device, templates: Sequence[str] = ()
) -> dict:
    """Unit vectors (N, D) and a class name each -> top-1 and, of more than 5 classes, top-5 accuracy in percent.

    A class of the same score as the true one counts as in front of it. templates: the default goes by the language of
    the class names.
    """
    classes = sorted(set(labels))
    templates = templates or (CHINESE_TEMPLATES if has_chinese(classes) else ENGLISH_TEMPLATES)
    cosine = vectors @ class_vectors(model, classes, templates, device).T  # (N, C)
    true = torch.tensor([classes.index(label) for label in labels])
    rank = (cosine >= cosine.gather(1, true[:, None]) - TIE).sum(1)  # 1 = first; counts the true one itself
    result = {"classes": len(classes), "templates": list(templates), "top1": _accuracy(rank == 1, len(classes), 1)}
    if len(classes) > 5:
        result["top5"] = _accuracy(rank <= 5, len(classes), 5)
    result["largest_class"] = 100 * max(Counter(labels).values()) / len(labels)
    of_each = [(rank[true == number] == 1).double().mean().item() for number in range(len(classes))]
    return result | {"top1_mean_of_classes": 100 * float(np.mean(of_each))}


def linear_probe(
    vectors: torch.Tensor, labels: Sequence[str], training: Sequence[bool] | None = None, seed: int = 0
) -> dict:
    """Logistic regression on vectors (N, D) -> accuracy in percent on images it was not fitted to, with its interval.

    training (N,): which images to fit to; None draws TEST_SHARE of each class to ask about. Classes with fewer than
    FEWEST images to fit to (with `training`) or in all are left out and named. The penalty is chosen by
    cross-validation among the images to fit to. ValueError where fewer than two classes are left.
    """
    labels = np.asarray(labels)
    chosen = np.ones(len(labels), bool) if training is None else np.asarray(training)
    count = Counter(labels[chosen].tolist())
    rare = sorted({label for label in labels.tolist() if count[label] < FEWEST})
    usable = np.flatnonzero(~np.isin(labels, rare))
    if len(set(labels[usable].tolist())) < 2:
        raise ValueError(f"fewer than two classes have {FEWEST} images to fit to")
    if training is None:
        fit, asked = train_test_split(
            usable, test_size=_test_size(labels[usable]), random_state=seed, stratify=labels[usable]
        )
    else:
        fit, asked = usable[chosen[usable]], usable[~chosen[usable]]
        if not len(asked):
            raise ValueError("no image of these classes is left to ask about")
    features = vectors.double().numpy()
    folds = StratifiedKFold(min(5, min(Counter(labels[fit].tolist()).values())), shuffle=True, random_state=seed)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": INVERSE_PENALTIES},
        cv=folds,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest penalties, which separate small sets
        search.fit(features[fit], labels[fit])
    right = search.predict(features[asked]) == labels[asked]
    classes = len(set(labels[fit].tolist()))
    majority = Counter(labels[fit].tolist()).most_common(1)[0][0]
    return {
        "classes": classes,
        "images_to_fit": len(fit),
        "images_asked": len(asked),
        "left_out_classes": rare,
        "C": search.best_params_["logisticregression__C"],
        "top1": _accuracy(right, classes, 1),
        "largest_class": 100 * float(np.mean(labels[asked] == majority)),
    }


def _test_size(labels: np.ndarray) -> int:
    """At least one image of each class."""
    return max(round(TEST_SHARE * len(labels)), len(set(labels.tolist())))


def _accuracy(right: Sequence[bool], classes: int, k: int) -> dict[str, float | list[float]]:
    percent = 100 * np.asarray(right, float)
    interval = list(bootstrap_interval(percent, top=100))
    return {"value": float(percent.mean()), "interval": interval, "chance": 100 * min(k, classes) / classes}
