"""Linear probe: logistic regression on image vectors.

image vectors (N, D), labels (N) -> fitted to some of the images, tested on the others -> accuracy
"""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clip.zero_shot import accuracy

INVERSE_PENALTIES = tuple(10.0**power for power in range(-4, 3))  # scikit-learn's C, chosen by cross-validation
TEST_SHARE = 0.3  # of each class, where no split is given
MIN_IMAGES = 4  # of a class: two folds of cross-validation need two each, or one is needed for the test


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
