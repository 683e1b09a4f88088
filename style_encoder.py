"""Checkpoint of the style encoder: written by train.py, opened by every tool.

encoder, content = load_encoder("checkpoints/best.pth", device)
style = encoder(read_image("a.png", encoder)[None].to(device)).style
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.cli.errors import one_line
from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.io import open_image
from common.images.transforms import square
from common.models.checkpoint_file import save_model
from common.models.model_folder import load_model
from model import VisionStyleEncoder

KIND = "style encoder"


def save_encoder(path: str | Path, encoder: VisionStyleEncoder, **metadata: Any) -> None:
    """Write an encoder with everything needed to use it. metadata: settings, step, metrics, ..."""
    save_model(path, encoder, KIND, encoder.build, preprocessing=encoder.preprocessing, **metadata)


def load_encoder(path: str | Path, device: torch.device) -> tuple[VisionStyleEncoder, dict[str, Any]]:
    """A file of save_encoder, a folder that tools/push_to_hub.py wrote, or a name on the Hub -> encoder in eval mode on
    `device`, and the rest of the content."""
    content = load_model(path, KIND)
    encoder = VisionStyleEncoder(**content["build"])
    try:
        encoder.load_state_dict(content.pop("model_state_dict"))
    except RuntimeError as error:
        raise ValueError(f"{path}: its weights do not fit the model it describes ({error})") from None
    return encoder.eval().to(device), content


def build_untrained(content: dict[str, Any], device: torch.device) -> tuple[VisionStyleEncoder | None, str]:
    """The encoder of a checkpoint before its training -> (encoder, '') or (None, the reason)."""
    torch.manual_seed(content["settings"]["seed"])
    try:
        encoder = VisionStyleEncoder(**content["build"], pretrained=content["settings"]["pretrained"])
    except (ValueError, OSError) as error:
        return None, one_line(error)
    return encoder.eval().to(device), ""


def read_image(path: str | Path, encoder: VisionStyleEncoder) -> torch.Tensor:
    """A file -> (3, S, S) uint8, the centred square that the encoder was validated on."""
    size = encoder.tower.image_size
    pixels = square(np.asarray(fit_shorter_side(open_image(path), round(CACHE_SCALE * size))), size)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
