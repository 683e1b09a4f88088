"""How do image files become batches of pixels, in order, with the broken ones named?

paths -> decode, cut -> (tiles, 3, S, S) uint8, hash of the file -> Batch of several images -> next one while it is used
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from common.images.io import open_image
from common.images.tiling import cut_tiles

DECODE_SCALE = 2  # sides of a JPEG are decoded at no less than this many times the model's


class ImageRecord(NamedTuple):
    position: int  # in the list of paths
    pixels: torch.Tensor | None  # (tiles, 3, S, S) uint8; None where the file cannot be used
    digest: str  # of the file's bytes: equal files are one image
    problem: str


class Batch(NamedTuple):
    positions: list[int]
    pixels: torch.Tensor  # (T, 3, S, S) uint8, the tiles of all images one after the other
    tiles: list[int]  # of each image; sums to T
    digests: list[str]
    problems: dict[int, str]  # position -> why it cannot be used


class ImageFiles(Dataset):
    """dataset[index] -> ImageRecord of paths[positions[index]].

    preprocess: image -> (3, S, S) uint8. tiles > 1: cut as in training into at most so many squares and a thumbnail.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        positions: Sequence[int],
        preprocess: Callable[[Image.Image], torch.Tensor],
        image_size: int,
        tiles: int = 1,
    ):
        self.paths, self.positions, self.preprocess = paths, positions, preprocess
        self.image_size, self.tiles = image_size, tiles

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> ImageRecord:
        position = self.positions[index]
        path = self.paths[position]
        try:
            image = open_image(path, at_least=0 if self.tiles > 1 else DECODE_SCALE * self.image_size)
            digest = file_digest(path)
        except (ValueError, OSError) as error:
            return ImageRecord(position, None, "", str(error))
        squares = [image]
        if self.tiles > 1:
            squares = cut_tiles(image, self.image_size, max_tiles=self.tiles)
        return ImageRecord(position, torch.stack([self.preprocess(square) for square in squares]), digest, "")


def collate(records: list[ImageRecord]) -> Batch:
    good = [record for record in records if record.pixels is not None]
    return Batch(
        [record.position for record in good],
        torch.cat([record.pixels for record in good]) if good else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        [len(record.pixels) for record in good],
        [record.digest for record in good],
        {record.position: record.problem for record in records if record.pixels is None},
    )


def read_batches(dataset: ImageFiles, batch_size: int, workers: int, pin: bool = False) -> Iterator[Batch]:
    """batch_size: images. workers: processes that decode; 0 = none."""
    return iter(DataLoader(dataset, batch_size, num_workers=workers, collate_fn=collate, pin_memory=pin))


def file_digest(path: Path) -> str:
    """16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
