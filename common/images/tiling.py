"""Square tiles of images of any shape (dynamic resolution).

image (W x H) -> grid of columns x rows tiles of the nearest aspect ratio -> resized to it -> tiles by rows, + thumbnail
              -> pixel_values (tiles, 3, S, S)

InternVL 1.5's dynamic resolution (arXiv 2404.16821, section 3.2). All tiles of an image are in one <img>..</img>.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Tiling:
    """Settings of tiling."""

    tile_size: int  # pixels a side
    tokens: int  # of the language model's sequence, for each tile
    min_tiles: int = 1
    max_tiles: int = 12  # of a sample, shared by its images
    thumbnail: bool = True
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"tiles from {self.min_tiles} to {self.max_tiles}: expected 1 <= min_dynamic_patch <= max_dynamic_patch"
            )

    def limit(self, images: int) -> int:
        """Maximum number of tiles of each of a sample's images, without thumbnails."""
        return max(self.min_tiles, self.max_tiles // max(images, 1))

    def grid(self, size: tuple[int, int], limit: int) -> tuple[int, int]:
        """size: (width, height) -> (columns, rows), min_tiles <= columns * rows <= limit.

        The grid with the nearest aspect ratio; of equal ones the larger, if the image has more than half its pixels.
        """
        return get_optimal_tiled_canvas(size[::-1], (self.tile_size, self.tile_size), self.min_tiles, limit)

    def count(self, size: tuple[int, int], limit: int) -> int:
        """size: (width, height) -> tiles, with the thumbnail."""
        columns, rows = self.grid(size, limit)
        return columns * rows + (self.thumbnail and columns * rows > 1)

    def cut(self, image: Image.Image, limit: int) -> list[Image.Image]:
        """Squares of tile_size pixels, row by row; if there are several, the whole image as the last (thumbnail)."""
        side = self.tile_size
        width, height = (number * side for number in self.grid(image.size, limit))
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        corners = [(left, top) for top in range(0, height, side) for left in range(0, width, side)]
        tiles = [resized.crop((left, top, left + side, top + side)) for left, top in corners]
        if self.thumbnail and len(tiles) > 1:
            tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
        return tiles

    def pixel_values(self, image: Image.Image, limit: int) -> torch.Tensor:
        """-> (tiles, 3, S, S) float32, normalised"""
        return self.normalise(self.cut(image, limit))

    def normalise(self, tiles: Sequence[Image.Image]) -> torch.Tensor:
        """Tiles of `cut` -> (tiles, 3, S, S) float32"""
        pixels = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles])).permute(0, 3, 1, 2)
        return (pixels / 255 - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)
