"""Vectors of image files by an image encoder.

paths -> pixels (B, 3, S, S) uint8 -> encoder -> vectors (B, D), unit length
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt, PositiveInt

from common.cli.progress_bar import progress_bar
from common.models.checkpoint_file import weights_digest
from common.models.pooling import ImageEncoder
from common.training.device import choose_device, choose_precision, disable_malloc_trim
from common.training.loader import choose_num_workers
from common.vectors.image_loader import Batch, ImageFiles, ImageRecord, read_batches

ENCODING_OPTIONS = ("pooling", "layer", "flip", "tiles", "image_size")  # what determines a vector, besides the weights


@dataclass(frozen=True)
class ExtractorOptions:
    pooling: Literal["auto", "native", "cls", "mean", "gem", "cls+mean"] = "auto"  # auto: native, else mean
    layer: int = -1  # -1: the last block, -2: the one before, ...
    flip: bool = False  # average with the vector of the mirrored image
    tiles: PositiveInt = 1  # cut into at most so many squares and average their vectors
    image_size: NonNegativeInt = 0  # pixels of the square input; 0: the network's own
    batch_size: PositiveInt = 32  # images per batch
    num_workers: int = -1  # decoding processes; -1: none on a CPU, else up to 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that supports it, else fp32
    device: str = "auto"


DEFAULT_OPTIONS = ExtractorOptions()


class Extractor:
    """An encoder and its options; `metadata` identifies what the vectors depend on."""

    def __init__(
        self,
        encoder: ImageEncoder,
        weights: str,
        options: ExtractorOptions = DEFAULT_OPTIONS,
        full_decode: bool = False,
    ):
        """encoder: on its device. weights: the name that `metadata` records. full_decode: see ImageFiles."""
        self.encoder, self.options, self.full_decode = encoder, options, full_decode
        self.device = next(encoder.parameters()).device
        if self.device.type == "cpu":
            disable_malloc_trim()
        precision = choose_precision(options.precision, self.device)
        self.dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.pooling = encoder.pooling(options.pooling)
        self.metadata: dict[str, Any] = {
            "weights": weights,
            "key": weights_digest({**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}),
            "pooling": self.pooling,
            "layer": options.layer,
            "flip": options.flip,
            "tiles": options.tiles,
            "image_size": encoder.image_size,
        }

    def embed(self, paths: Sequence[Path], quiet: bool = False) -> Iterator[tuple[ImageRecord, np.ndarray | None]]:
        """Each file in order, with its vector (D,) float32, or None if it is unreadable."""
        size, workers = self.encoder.image_size, self.options.num_workers
        if workers < 0:  # for a single batch, starting processes takes longer than decoding
            workers = choose_num_workers(self.device) if len(paths) > self.options.batch_size else 0
        files = ImageFiles(paths, self.encoder.preprocess, size, self.options.tiles, self.full_decode)
        with progress_bar(total=len(paths), desc="提取特征", unit="img", quiet=quiet) as bar:
            for batch in read_batches(files, self.options.batch_size, workers, pin=self.device.type == "cuda"):
                vectors = iter(self.vectors(batch))
                for record in batch.records:
                    yield record, None if record.problem else next(vectors)
                bar.update(len(batch.records))

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """-> (N, D) float32, unit length; ValueError for a file that is unreadable."""
        vectors = []
        for record, vector in self.embed(paths, quiet=True):
            if record.problem:
                raise ValueError(record.problem)
            vectors.append(vector)
        return np.stack(vectors)

    @torch.inference_mode()
    def vectors(self, batch: Batch) -> np.ndarray:
        """-> (readable images, D) float32; of several tiles the mean of their vectors, at unit length."""
        if not batch.tiles:
            return np.empty((0, 0), np.float32)
        with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
            options = (self.pooling, self.options.layer, self.options.flip)
            parts = [
                self.encoder(pixels.to(self.device, non_blocking=True), *options)
                for pixels in batch.pixels.split(self.options.batch_size)  # tiles make more of them than images
            ]
        vectors = torch.cat(parts)
        if max(batch.tiles) > 1:
            vectors = F.normalize(torch.stack([tiles.mean(0) for tiles in vectors.split(batch.tiles)]), dim=1)
        if not torch.isfinite(vectors).all():
            raise ValueError(f"{self.metadata['weights']}: the model gives vectors that are not finite (NaN)")
        return vectors.float().cpu().numpy()


def local_device(name: str) -> torch.device:
    """As choose_device; of several processes on a machine, each gets its own GPU."""
    rank = os.environ.get("LOCAL_RANK", "")
    return choose_device(f"cuda:{rank}" if name == "auto" and rank and torch.cuda.is_available() else name)
