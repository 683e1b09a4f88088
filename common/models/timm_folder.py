"""A timm backbone as a folder that timm alone opens: config.json (what to build, preprocessing), model.safetensors.

timm.create_model("local-dir:FOLDER", pretrained=True), or "hf-hub:owner/name" once it is on the Hub
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import nn


def write_timm_folder(
    folder: str | Path,
    backbone: nn.Module,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bicubic",
    crop_pct: float = 1.0,
) -> None:
    """backbone: of timm.create_model. The rest is the preprocessing that its weights were trained behind.

    crop_pct: share of the scaled image's side that is kept.
    """
    # safetensors wants plain memory, and training keeps convolutions channels last.
    plain = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    data = {
        "input_size": (3, image_size, image_size),
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": interpolation,
        "crop_pct": crop_pct,
    }
    timm.models.save_for_hf(plain, str(folder), safe_serialization=True, data_config=data)
