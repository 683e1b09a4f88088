"""Batches of decoded images in the order of their paths; unreadable files are named.

paths -> decode, cut into tiles -> (tiles, 3, S, S) uint8, digest of the file -> Batch of several images
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from common.images.io import open_image
from common.images.tiling import cut_tiles

DECODE_SCALE = 2  # sides of a JPEG are decoded at no less than this many times the model's


class ImageRecord(NamedTuple):
    path: Path
    digest: str  # of the file's bytes: equal files are one image
    problem: str  # why the file cannot be used; '' = readable


class Batch(NamedTuple):
    records: list[ImageRecord]
    pixels: torch.Tensor  # (T, 3, S, S) uint8, the tiles of all readable images one after the other
    tiles: list[int]  # of each readable image; sums to T


@dataclass
class ImageFiles(Dataset):
    """dataset[index] -> ImageRecord of paths[index], pixels (tiles, 3, S, S) uint8, or None if it is unreadable."""

    paths: Sequence[Path]
    preprocess: Callable[[Image.Image], torch.Tensor]  # -> (3, S, S) uint8
    image_size: int  # pixels, S
    tiles: int = 1  # above 1: cut as in training into at most so many squares and a thumbnail
    full_decode: bool = False  # decode JPEGs at full size, as tiling always does

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[ImageRecord, torch.Tensor | None]:
        path = self.paths[index]
        tiled = self.tiles > 1
        try:
            image = open_image(path, at_least=0 if tiled or self.full_decode else DECODE_SCALE * self.image_size)
            digest = file_digest(path)
        except (ValueError, OSError) as error:
            return ImageRecord(path, "", str(error)), None
        squares = cut_tiles(image, self.image_size, max_tiles=self.tiles) if tiled else [image]
        return ImageRecord(path, digest, ""), torch.stack([self.preprocess(square) for square in squares])


def collate(items: list[tuple[ImageRecord, torch.Tensor | None]]) -> Batch:
    pixels = [tiles for _, tiles in items if tiles is not None]
    stacked = torch.cat(pixels) if pixels else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
    return Batch([record for record, _ in items], stacked, [len(tiles) for tiles in pixels])


def read_batches(dataset: ImageFiles, batch_size: int, num_workers: int, pin: bool = False) -> Iterator[Batch]:
    """batch_size: images. num_workers: decoding processes; 0 = none."""
    return iter(DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=collate, pin_memory=pin))


def file_digest(path: Path) -> str:
    """16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
