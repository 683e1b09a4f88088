"""A data set's questions put to a model.

dataset (N samples) -> batches of left-padded prompts -> generated texts -> N answers in their order
"""

from typing import Any

import torch

from blip2_gated.dataset import VqaDataset
from blip2_gated.metrics import Answered
from blip2_gated.model import Blip2OPTGated, Features
from common.cli.progress_bar import progress_bar


def answer_samples(
    model: Blip2OPTGated, dataset: VqaDataset, limit: int = 0, batch_size: int = 32, quiet: bool = True, **options: Any
) -> list[Answered]:
    """limit: only so many, evenly spread over the data set; 0 = all. options: those of generating."""
    count = len(dataset) if not limit else min(limit, len(dataset))
    chosen = [position * len(dataset) // count for position in range(count)]
    found = []
    with progress_bar(total=count, desc="answering", unit="question", quiet=quiet) as bar:
        for start in range(0, count, batch_size):
            indices = chosen[start : start + batch_size]
            samples = [dataset.samples[index] for index in indices]
            said = model.predict_answers(
                pictures_of(model, dataset, indices), [one.question for one in samples], **options
            )
            found += [
                Answered(one.number, one.image, one.question, one.answer, prediction, one.type, one.style)
                for one, prediction in zip(samples, said)
            ]
            bar.update(len(indices))
    return found


def pictures_of(model: Blip2OPTGated, dataset: VqaDataset, indices: list[int]) -> torch.Tensor | Features:
    """Pixels, or the kept features of these samples' images."""
    items = [dataset[index] for index in indices]
    device = model.mean.device
    if "image" in items[0]:
        return torch.stack([item["image"] for item in items]).to(device)
    pooled = torch.stack([item["pooled"] for item in items]).to(device) if "pooled" in items[0] else None
    return Features(torch.stack([item["patches"] for item in items]).to(device), pooled)
