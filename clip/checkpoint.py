"""Checkpoints of CLIP: this project's own files, folders of the Hub, published weights by name."""

from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.pretrained import is_pretrained_cfg

from clip.architectures import canonical_name, is_architecture
from clip.model import CLIPModel
from clip.pretrained import KIND
from common.models.checkpoint_file import save_model


def save_clip(path: str | Path, model: CLIPModel, **metadata: Any) -> None:
    """One file, sufficient for `load_clip` to rebuild the model."""
    save_model(path, model, KIND, {"config": model.config}, **metadata)


def load_clip(path: str | Path, device: torch.device | str = "cpu") -> tuple[CLIPModel, dict[str, Any]]:
    """A file of save_clip, or any other name of CLIPModel.open -> model in eval mode, the file's metadata."""
    model, metadata = CLIPModel.open(path)
    return model.to(device), metadata


def is_clip_name(name: str, source: str) -> bool:
    """Whether NAME:SOURCE is a CLIP of open_clip; of names that timm has as well (convnext_base), with a tag only."""
    return is_architecture(canonical_name(name)) and (not timm.is_model(name) or is_pretrained_cfg(name, source))
