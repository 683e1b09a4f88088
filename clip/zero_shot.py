"""Zero-shot classification: the class whose name is nearest to the image.

image vectors (N, D), labels (N) + class names -> prompts -> class vectors (C, D) -> cosines (N, C) -> accuracy
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import open_clip
import torch
import torch.nn.functional as F

from clip.embed import embed_texts
from clip.model import CLIPModel
from common.metrics.bootstrap import bootstrap_interval
from common.metrics.retrieval import TIE
from common.metrics.text import has_chinese

ENGLISH_TEMPLATES = tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES)  # CLIP's best seven
CHINESE_TEMPLATES = ("{}", "{}的图片。", "一张{}的照片。", "一幅{}的画。")


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
    interval = list(bootstrap_interval(percent, top=100))
    return {"value": float(percent.mean()), "interval": interval, "chance": 100 * min(k, classes) / classes}
