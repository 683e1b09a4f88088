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
        _check_limits(self.min_tiles, self.max_tiles)

    def limit(self, images: int) -> int:
        """Maximum number of tiles of each of a sample's images, without thumbnails."""
        return max(self.min_tiles, self.max_tiles // max(images, 1))

    def count(self, size: tuple[int, int], limit: int) -> int:
        """size: (width, height) -> tiles, with the thumbnail."""
        return count_tiles(*size, self.tile_size, self.min_tiles, limit, self.thumbnail)

    def pixel_values(self, image: Image.Image, limit: int) -> torch.Tensor:
        """-> (tiles, 3, S, S)"""
        tiles = cut_tiles(image, self.tile_size, self.min_tiles, limit, self.thumbnail)
        return to_pixel_values(tiles, self.mean, self.std)


def choose_grid(width: int, height: int, tile_size: int, min_tiles: int = 1, max_tiles: int = 12) -> tuple[int, int]:
    """-> (columns, rows), min_tiles <= columns * rows <= max_tiles.

    The grid with the nearest aspect ratio; of equal ones the larger, if the image has more than half its pixels.
    """
    _check_limits(min_tiles, max_tiles)
    return get_optimal_tiled_canvas((height, width), (tile_size, tile_size), min_tiles, max_tiles)


def count_tiles(
    width: int, height: int, tile_size: int, min_tiles: int = 1, max_tiles: int = 12, thumbnail: bool = True
) -> int:
    """Number of tiles of cut_tiles, with the thumbnail."""
    columns, rows = choose_grid(width, height, tile_size, min_tiles, max_tiles)
    return columns * rows + (thumbnail and columns * rows > 1)


def cut_tiles(
    image: Image.Image, tile_size: int, min_tiles: int = 1, max_tiles: int = 12, thumbnail: bool = True
) -> list[Image.Image]:
    """Squares of tile_size pixels, row by row; if there are several, the whole image as the last (thumbnail)."""
    columns, rows = choose_grid(*image.size, tile_size, min_tiles, max_tiles)
    width, height = columns * tile_size, rows * tile_size
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    corners = [(left, top) for top in range(0, height, tile_size) for left in range(0, width, tile_size)]
    tiles = [resized.crop((left, top, left + tile_size, top + tile_size)) for left, top in corners]
    if thumbnail and len(tiles) > 1:
        tiles.append(image.resize((tile_size, tile_size), Image.Resampling.BICUBIC))
    return tiles


def to_pixel_values(
    tiles: Sequence[Image.Image], mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> torch.Tensor:
    """RGB tiles of one size -> normalised (tiles, 3, S, S) float32."""
    pixels = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles])).permute(0, 3, 1, 2)
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def _check_limits(min_tiles: int, max_tiles: int) -> None:
    if not 1 <= min_tiles <= max_tiles:
        raise ValueError(f"tiles from {min_tiles} to {max_tiles}: expected 1 <= min_dynamic_patch <= max_dynamic_patch")
