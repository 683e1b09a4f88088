"""Checkpoints of CLIP: this project's own files, folders of the Hub, Hugging Face CLIP folders."""

from pathlib import Path
from typing import Any

import torch

from clip.huggingface import read_huggingface
from clip.model import CLIPModel
from common.models.checkpoint_file import save_model
from common.models.model_folder import is_model_folder, load_model

KIND = "clip"


def save_clip(path: str | Path, model: CLIPModel, **metadata: Any) -> None:
    """One file, sufficient for `load_clip` to rebuild the model."""
    save_model(path, model, KIND, {"config": model.config}, **metadata)


def load_clip(path: str | Path, device: torch.device | str = "cpu") -> tuple[CLIPModel, dict[str, Any]]:
    """A file of save_clip; or a folder or name on the Hub, of tools/push_to_hub.py or of a Hugging Face CLIP -> model
    in eval mode, the file's metadata."""
    if not Path(path).is_file() and not is_model_folder(path):
        return read_huggingface(path).to(device).eval(), {}
    content = load_model(path, KIND)
    model = CLIPModel(**content["build"])
    model.load_state_dict(content.pop("model_state_dict"))
    return model.to(device).eval(), content
