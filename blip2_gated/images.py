"""Images as BLIP-2 reads them: the whole picture, resized to a square, without its aspect ratio.

files or PIL images -> (B, 3, S, S) uint8 -> features of the two towers
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.io import ImageSource, open_image


class TowerFeatures(NamedTuple):
    """Outputs of the two frozen towers for an image; can be cached."""

    patches: torch.Tensor  # (B, N, V)
    pooled: torch.Tensor | None  # (B, P); None without an EfficientNet, or to close the gates

    def row(self, index: int) -> "TowerFeatures":
        """Of one image, as a batch of one."""
        rows = slice(index, index + 1)
        return TowerFeatures(self.patches[rows], None if self.pooled is None else self.pooled[rows])


def prepare_images(images: Sequence[ImageSource], size: int) -> torch.Tensor:
    """-> (B, 3, size, size) uint8, as in training."""
    pixels = [np.asarray(fit_shorter_side(open_image(image), round(CACHE_SCALE * size))) for image in images]
    return torch.stack([squeeze(array, size) for array in pixels])


def squeeze(pixels: np.ndarray, size: int) -> torch.Tensor:
    """pixels (H, W, 3) uint8 -> (3, size, size) uint8."""
    resized = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    return torch.tensor(resized).permute(2, 0, 1)


def outside_unit_range(image: torch.Tensor) -> bool:
    """Whether float pixels are not all in 0..1, as after normalisation."""
    return image.is_floating_point() and not bool(((image >= 0) & (image <= 1)).all())
