"""A model's answers to the questions of a data set.

dataset (N samples) -> batches of left-padded prompts -> generated texts -> N predictions in their order
"""

from typing import Any

from torch.utils.data import default_collate

from blip2_gated.dataset import VqaDataset
from blip2_gated.metrics import Prediction
from blip2_gated.model import Blip2OPTGated, TowerFeatures
from common.cli.progress_bar import progress_bar


def answer_samples(
    model: Blip2OPTGated, dataset: VqaDataset, limit: int = 0, batch_size: int = 32, quiet: bool = True, **options: Any
) -> list[Prediction]:
    """limit: number of samples, evenly spread over the data set; 0 = all. options: of generation."""
    count = min(limit or len(dataset), len(dataset))
    samples = [dataset.samples[position * len(dataset) // count] for position in range(count)]
    predictions = []
    for start in progress_bar(range(0, count, batch_size), "answering", unit="batch", quiet=quiet):
        batch = samples[start : start + batch_size]
        inputs = default_collate([dataset.image_inputs(sample) for sample in batch])
        inputs = {name: value.to(model.mean.device) for name, value in inputs.items()}
        images = inputs["image"] if "image" in inputs else TowerFeatures(inputs["patches"], inputs.get("pooled"))
        answers = model.predict_answers(images, [sample.question for sample in batch], **options)
        predictions += map(Prediction, batch, answers)
    return predictions
