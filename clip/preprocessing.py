"""Preprocessing of images that belongs to the weights.

image (PIL) -> resized and cropped (3, S, S) uint8; the model normalises it
"""

from typing import Any

import torch
import torchvision.transforms.functional as TF
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from common.images.io import open_image

STATISTICS = {  # mean and standard deviation of each channel, for pixels in [0, 1]
    "clip": (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}


class Resize:
    """-> (3, S, S) uint8, identical to open_clip's, and so to OpenAI's.

    resize_mode: shortest (shorter side to S, then the centred square), squash (the whole image), or longest (padded).
    """

    def __init__(self, size: int, interpolation: str = "bicubic", resize_mode: str = "shortest"):
        self.size, self.resize_mode = size, resize_mode
        config = PreprocessCfg(size, interpolation=interpolation, resize_mode=resize_mode)
        transform: Any = image_transform_v2(config, is_train=False)
        self.steps = transform.transforms[:-3]  # without conversion to RGB, to a tensor, and normalisation

    def visible(self, image: Image.Image) -> Image.Image:
        """An image whose centred square is what the model sees of it, for overlays."""
        return image.resize((min(image.size),) * 2) if self.resize_mode == "squash" else image

    def __call__(self, image: Image.Image) -> torch.Tensor:
        image = open_image(image)
        for step in self.steps:
            image = step(image)
        return TF.pil_to_tensor(image)
