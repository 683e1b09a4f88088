"""Vectors of image files by an image encoder.

paths -> decode, cut into tiles -> pixels (T, 3, S, S) uint8 -> encoder -> vectors (B, D), unit length
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from common.cli.progress_bar import progress_bar
from common.images.io import open_image
from common.images.tiling import Tiling
from common.models.checkpoint_file import first_line, weights_digest
from common.models.pooling import ImageEncoder
from common.training.device import choose_device, choose_precision, disable_malloc_trim
from common.training.loader import choose_num_workers
from common.vectors.onnx_encoder import GAIN, Encode, onnx_encoder, worth_a_try
from common.vectors.options import DEFAULT_OPTIONS, ENCODING_OPTIONS, ExtractorOptions

DECODE_SCALE = 2  # sides of a JPEG are decoded at no less than this many times the model's


class Extractor:
    """An encoder on its device and its options; `metadata` identifies what the vectors depend on.

    weights: the name that `metadata` records. full_decode: see ImageFiles.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        weights: str,
        options: ExtractorOptions = DEFAULT_OPTIONS,
        full_decode: bool = False,
    ):
        self.encoder, self.options, self.full_decode = encoder, options, full_decode
        self.device = next(encoder.parameters()).device
        if self.device.type == "cpu":
            disable_malloc_trim()
        self.dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[
            choose_precision(options.precision, self.device)
        ]
        self.pooling = encoder.pooling(options.pooling)
        self.encode_batch: Encode = self._eager
        can_gain = self.device.type == "cpu" and self.dtype is None
        self.may_use_onnx = {"auto": can_gain, "onnx": True, "eager": False}[options.backend]  # until it was tried
        self.metadata: dict[str, Any] = {
            "weights": weights,
            "key": weights_digest({**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}),
            "pooling": self.pooling,
            "layer": options.layer,
            "flip": options.flip,
            "tiles": options.tiles,
            "image_size": encoder.image_size,
        }

    @cached_property
    def width(self) -> int:
        """D, as the encoder gives it for a blank image."""
        size = self.encoder.image_size
        return self.encode_pixels(torch.full((1, 3, size, size), 128, dtype=torch.uint8), [1]).shape[1]

    def embed(self, paths: Sequence[Path], quiet: bool = False) -> "Iterator[tuple[ImageRecord, np.ndarray | None]]":
        """Each file in order, with its vector (D,) float32, or None if it is unreadable."""
        batch_size, workers = self.options.batch_size, self.options.num_workers
        if workers < 0:  # for a single batch, starting processes takes longer than decoding
            workers = choose_num_workers(self.device) if len(paths) > batch_size else 0
        loader = DataLoader(
            ImageFiles(paths, self.encoder.preprocess, self.encoder.image_size, self.options.tiles, self.full_decode),
            batch_size,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
        )
        with progress_bar(total=len(paths), desc="encoding", unit="img", quiet=quiet) as bar:
            for number, (records, pixels) in enumerate(loader):
                if self.may_use_onnx and self.options.backend == "onnx" and len(pixels):
                    self._use_onnx(pixels, quiet=False)
                start = time.perf_counter()
                vectors = iter(self.encode_pixels(pixels, [record.tiles for record in records if record.tiles]))
                seconds = (time.perf_counter() - start) * (len(loader) - number - 1)  # of the remaining batches
                if self.may_use_onnx and number and len(pixels) and worth_a_try(self.encoder, seconds):  # 0 warms up
                    self._use_onnx(pixels, quiet, GAIN)
                for record in records:
                    yield record, next(vectors) if record.tiles else None
                bar.update(len(records))

    def encode(self, paths: Sequence[Path], skipped: dict[str, str] | None = None) -> np.ndarray:
        """-> (N, D) float32, unit length, of readable files. skipped: collects the reasons of others, which are a
        ValueError where it is None."""
        records, vectors = zip(*self.embed(paths, quiet=True))
        problems = {str(record.path): record.problem for record in records if record.problem}
        if problems and skipped is None:
            raise ValueError(next(iter(problems.values())))
        if skipped is not None:
            skipped |= problems
        kept = [vector for vector in vectors if vector is not None]
        return np.stack(kept) if kept else np.empty((0, 0), np.float32)

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor, tiles: list[int]) -> np.ndarray:
        """pixels (T, 3, S, S), `tiles` of each image -> (images, D) float32: the mean of its tiles, unit length."""
        if not tiles:
            return np.empty((0, 0), np.float32)
        with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
            parts = [
                self.encode_batch(part.to(self.device, non_blocking=True))
                for part in pixels.split(self.options.batch_size)  # tiles make more of them than images
            ]
        vectors = torch.cat(parts)
        if max(tiles) > 1:
            vectors = F.normalize(torch.stack([part.mean(0) for part in vectors.split(tiles)]), dim=1)
        if not torch.isfinite(vectors).all():
            raise ValueError(f"{self.metadata['weights']}: the model gives vectors that are not finite (NaN)")
        return vectors.float().cpu().numpy()

    def _eager(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder(pixels, self.pooling, self.options.layer, self.options.flip)

    def _use_onnx(self, pixels: torch.Tensor, quiet: bool, gain: float = 0.0) -> None:
        """Encode in ONNX Runtime from now on. gain: how many times as fast as PyTorch it must be."""
        self.may_use_onnx, outcome = False, "used"
        try:
            if self.device.type != "cpu" or self.dtype:
                raise ValueError("it computes in fp32 on the CPU")
            self.encode_batch = onnx_encoder(self.encoder, self._eager, pixels[: self.options.batch_size], gain)
        except Exception as error:  # exporters raise every kind, and PyTorch can do the same
            outcome = f"not used: {first_line(error)}"
        if not quiet:
            print(f"ONNX Runtime is {outcome}", file=sys.stderr)


class ImageRecord(NamedTuple):
    path: Path
    tiles: int  # 0 = unreadable
    digest: str  # of the file's bytes: equal files are one image
    problem: str  # why the file cannot be used


@dataclass
class ImageFiles(Dataset):
    """dataset[index] -> ImageRecord of paths[index], pixels (tiles, 3, S, S) uint8."""

    paths: Sequence[Path]
    preprocess: Callable[[Image.Image], torch.Tensor]  # -> (3, S, S) uint8
    image_size: int  # pixels, S
    tiles: int = 1  # above 1: cut as in training into at most so many squares and a thumbnail
    full_decode: bool = False  # decode JPEGs at full size, as tiling always does

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[ImageRecord, torch.Tensor]:
        path, tiled = self.paths[index], self.tiles > 1
        try:
            image = open_image(path, at_least=0 if tiled or self.full_decode else DECODE_SCALE * self.image_size)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
        except (ValueError, OSError) as error:
            return ImageRecord(path, 0, "", str(error)), torch.empty(0, 3, self.image_size, self.image_size).byte()
        squares = Tiling(self.image_size, tokens=0).cut(image, self.tiles) if tiled else [image]
        return ImageRecord(path, len(squares), digest, ""), torch.stack(list(map(self.preprocess, squares)))


def collate(items: list[tuple[ImageRecord, torch.Tensor]]) -> tuple[list[ImageRecord], torch.Tensor]:
    """-> B records, pixels (T, 3, S, S) of all their tiles"""
    records, pixels = zip(*items)
    return list(records), torch.cat(pixels)


def difference(made: dict[str, Any], wanted: dict[str, Any], names: Iterable[str] = ("key", *ENCODING_OPTIONS)) -> str:
    """The first of `names` in which the metadata of vectors differ, in words; '' = none."""
    for name in names:
        if made.get(name) != wanted.get(name):
            what = {"key": "weights", "list": "images"}.get(name)
            return f"other {what}" if what else f"{name} {made.get(name)}, not {wanted.get(name)}"
    return ""


def local_device(name: str) -> torch.device:
    """As choose_device; of several processes on a machine, each gets its own GPU."""
    rank = os.environ.get("LOCAL_RANK", "")
    return choose_device(f"cuda:{rank}" if name == "auto" and rank and torch.cuda.is_available() else name)
