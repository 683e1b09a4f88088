"""Data under the names of the training guide: `from data_loader import ImageTextDataset` in this folder."""

import sys
from collections.abc import Callable
from pathlib import Path

if not __package__:  # imported from inside this folder: imports begin at the repository root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from PIL import Image

from clip.dataset import PairDataset, create_sample_dataset, find_pairs
from clip.preprocessing import Resize
from clip.tokenizer import CLIPTokenizer
from common.cli.paths import find_from_root
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.io import open_image
from common.images.transforms import SampleKey
from common.training.skip_log import report_skipped

__all__ = ["ImageTextDataset", "create_sample_dataset"]


class ImageTextDataset(PairDataset):
    """PairDataset of a folder, for a plain DataLoader: tokens are padded to the context length.

    transform: of a PIL image, in place of scaling and cropping to image_size; without Normalize, which CLIPModel does.
    """

    def __init__(
        self,
        data_dir: str | Path = "./data",
        transform: Callable[[Image.Image], torch.Tensor] | None = None,
        image_size: int = 224,
    ):
        pairs, skipped = find_pairs(find_from_root(str(data_dir)))
        images = ImageCache(round(CACHE_SCALE * image_size))
        unreadable = images.check(pairs.images)
        report_skipped(skipped | unreadable)
        super().__init__(pairs.without(unreadable), images, Resize(image_size), CLIPTokenizer())
        self.transform = transform

    def read(self, key: int | SampleKey) -> dict[str, torch.Tensor] | None:
        """-> image (3, S, S), tokens (77,), text_ids, group_ids."""
        if (item := super().read(key)) is None:
            return None
        missing = self.tokenizer.context_length - len(item["tokens"])
        item["tokens"] = F.pad(item["tokens"], (0, missing), value=self.tokenizer.pad_id)
        if self.transform:
            index = key.index if isinstance(key, SampleKey) else key
            item["image"] = self.transform(open_image(self.pairs.images[index]))
        return item
