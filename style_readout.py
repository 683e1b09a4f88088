"""Fit of the parts of a style vector that need no training: one pass over images before it begins."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from common.cli.progress_bar import progress_bar
from common.images.transforms import SampleKey
from common.models.eval_mode import eval_mode
from common.models.linear_discriminant import LinearDiscriminant
from dataset import StyleDataset
from model import VisionStyleEncoder
from style_head import colour_histogram
from targets import TargetShapes

REAL_IMAGES = 4000  # at most, of all styles together
REMIXED_IMAGES = 8  # of each style that is invented by redrawing images, as many styles as are drawn
# Of one class of real images, of drawings and of redrawn images in the fit. With few real styles the invented ones
# decide in which directions styles differ; with a hundred they cost nothing.
WEIGHTS = {"real": 1.0, "drawn": 0.2, "remixed": 0.2}


@torch.no_grad()
def fit_readout(encoder: VisionStyleEncoder, dataset: StyleDataset, device: torch.device, seed: int = 0) -> None:
    """Fit the discriminants of the style head on a training set, its drawings, and its images redrawn in new styles."""
    plain = StyleDataset(
        dataset.samples, dataset.images, dataset.image_size, TargetShapes(), dataset.augmentation, drawn=dataset.drawn
    )
    keys: dict[str, list[Any]] = {
        "real": _real_images(dataset),
        "drawn": dataset.drawing_indices.ravel().tolist(),
        "remixed": list(_remixed(dataset, seed)) if dataset.augmentation else [],
    }
    sources: dict[str, list[tuple[torch.Tensor, torch.Tensor, float]]] = {}
    with eval_mode(encoder):
        for source, chosen in keys.items():
            if not chosen:
                continue
            loader = DataLoader(plain, 64, sampler=chosen, generator=torch.Generator())  # the global one is training's
            parts, labels = [], []
            for batch in progress_bar(loader, f"statistics, {source}"):
                image = batch["image"].to(device)
                feature_maps = encoder.tower(image).feature_maps
                parts.append(encoder.style_head.statistics(image, colour_histogram(image), feature_maps))
                labels.append(batch["style_ids"])
            for name in parts[0]:
                vectors = torch.cat([part[name] for part in parts])
                sources.setdefault(name, []).append((vectors, torch.cat(labels), WEIGHTS[source]))
    for name, discriminant in encoder.style_head.discriminants.items():
        cast(LinearDiscriminant, discriminant).fit(sources[name])


def _real_images(dataset: StyleDataset) -> list[int]:
    """Every image, or as many of each style."""
    share = max(2, REAL_IMAGES // len(dataset.styles))
    return [index for members in dataset.members for index in members[:: -(-len(members) // share)]]


def _remixed(dataset: StyleDataset, seed: int) -> Iterator[SampleKey]:
    random = np.random.default_rng([seed, 2])
    for number in range(len(dataset.drawn)):
        members = dataset.members[number % len(dataset.styles)]
        style_seed = int(random.integers(1, 2**31))
        for index in random.permutation(members)[:REMIXED_IMAGES]:
            yield SampleKey(0, int(index), style_seed)
