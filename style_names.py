"""Styles by their names: zero-shot, by the text encoder whose output the style encoder was trained to give.

images -> style encoder -> pooled (N, P) -----------\\
names -> prompt -> text encoder -> pooled (K, P) ----> cosines (N, K)

Both sides lose their mean over the training images first: texts about styles have much in common that tells none apart.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from common.cli.errors import printable
from common.models.eval_mode import eval_mode
from dataset import StyleDataset
from model import VisionStyleEncoder
from sample_table import SampleTable
from style_encoder import encode_folder, encode_images
from targets import load_target
from text_encoder import open_text_encoder, read_record

MEAN_IMAGES, PREDICTED_IMAGES = 1000, 128  # whose texts, and outputs, the means are of


def describe_texts(data_dir: Path, samples: SampleTable) -> dict[str, Any] | None:
    """What a checkpoint needs to take names: the record of the text encoder, and `mean` (P,) of the samples' pooled
    targets, of unit length; train.py adds the mean_prediction of its weights as `image_mean`. None: the targets are of
    another source, or none are pooled."""
    record = read_record(data_dir)
    indices = samples.having("pooled")
    if record is None or not len(indices):
        return None
    chosen = samples.select(indices[:: -(-len(indices) // MEAN_IMAGES)])
    pooled = torch.stack([load_target(sample.targets["pooled"], "pooled") for sample in chosen])
    return {**record, "mean": F.normalize(pooled, dim=1).mean(0)}


@torch.no_grad()
def mean_prediction(encoder: VisionStyleEncoder, dataset: StyleDataset, device: torch.device) -> torch.Tensor:
    """The mean (P,) of the pooled outputs, of unit length, for images of a data set."""
    indices = range(0, len(dataset.samples), -(-len(dataset.samples) // PREDICTED_IMAGES))
    with eval_mode(encoder):
        parts = [
            encoder(torch.stack([dataset[index]["image"] for index in indices[start : start + 32]]).to(device)).pooled
            for start in range(0, len(indices), 32)
        ]
    return F.normalize(torch.cat(parts).float(), dim=1).mean(0).cpu()


def rank_names(
    query: Path,
    names: Sequence[str],
    encoder: VisionStyleEncoder,
    content: dict[str, Any],
    device: torch.device,
    top: int,
) -> tuple[dict[str, Any], str]:
    """query: an image or a folder of them; content: of the encoder's checkpoint -> result, report."""
    texts = content.get("texts")
    if encoder.pooled_head is None or texts is None:
        raise ValueError(
            "--names: these weights were trained without texts of their styles; run prepare_targets.py on the data, "
            "then train.py"
        )
    if query.is_dir():
        paths, vectors = encode_folder(query, encoder, device, "pooled")
    else:
        paths, vectors = [query], encode_images([query], encoder, device, "pooled")
    cosines = name_similarity(vectors, encode_names(names, texts, device), texts)
    order = cosines.mean(0).argsort(descending=True).tolist()
    result = {
        "names": [{"name": names[index], "similarity": float(cosines[:, index].mean())} for index in order],
        "images": [
            {"image": str(path), "best": names[row.index(max(row))], "similarity": max(row)}
            for path, row in zip(paths, cosines.tolist())
        ],
    }
    what = printable(query) if len(paths) == 1 else f"{len(paths)} images of {printable(query)}, on average"
    lines = [
        f"{what}:",
        *(f"{entry['similarity']:8.4f}  {printable(entry['name'])}" for entry in result["names"][:top]),
    ]
    return result, "\n".join(lines)


def encode_names(names: Sequence[str], texts: dict[str, Any], device: torch.device) -> torch.Tensor:
    """-> pooled (K, P) of the prompt with each name. texts: of describe_texts."""
    encode = open_text_encoder(texts["text_encoder"], texts["max_length"], device)
    prompts = [texts.get("prompt", "{style}").replace("{style}", name) for name in names]
    return torch.stack([targets["pooled"].float() for targets in encode(prompts)])


def name_similarity(images: torch.Tensor, names: torch.Tensor, texts: dict[str, Any]) -> torch.Tensor:
    """pooled (N, P) of images, (K, P) of names -> cosines (N, K)."""
    images = F.normalize(F.normalize(images, dim=1) - texts["image_mean"], dim=1)
    names = F.normalize(F.normalize(names, dim=1) - texts["mean"], dim=1)
    return images @ names.T
