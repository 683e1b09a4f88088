"""Checkpoints of CLIP: this project's own files, folders of the Hub, Hugging Face CLIP folders."""

from pathlib import Path
from typing import Any

import torch

from clip.model import CLIPModel
from clip.pretrained import KIND, read_checkpoint
from common.models.checkpoint_file import load_every_tensor, save_model


def save_clip(path: str | Path, model: CLIPModel, **metadata: Any) -> None:
    """One file, sufficient for `load_clip` to rebuild the model."""
    save_model(path, model, KIND, {"config": model.config}, **metadata)


def load_clip(path: str | Path, device: torch.device | str = "cpu") -> tuple[CLIPModel, dict[str, Any]]:
    """A file of save_clip; or a folder or name on the Hub, of tools/push_to_hub.py or of a Hugging Face CLIP -> model
    in eval mode, the file's metadata."""
    checkpoint = read_checkpoint(path)
    model = CLIPModel(config=checkpoint.config)
    load_every_tensor(model.network, checkpoint.weights, path, "this CLIP")
    return model.to(device).eval(), checkpoint.metadata
