"""Files to vectors: the part that extracting, indexing and searching have in common.

paths -> pixels (B, 3, S, S) uint8 -> encoder -> vectors (B, D), unit length -> shards of `shard_size` images
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.models.pooling import ImageEncoder
from common.training.device import choose_device, choose_precision, disable_malloc_trim
from common.training.loader import choose_num_workers
from common.vectors.image_index import key_of
from common.vectors.image_loader import Batch, ImageFiles, read_batches
from common.vectors.shards import Shard

ENCODING_OPTIONS = ("pooling", "layer", "flip", "tiles", "image_size")  # what shapes a vector, besides the weights


class Extractor:
    """An encoder and the way its vectors are made; `facts` tell apart whatever gives other vectors."""

    def __init__(
        self,
        encoder: ImageEncoder,
        weights: str,
        device: torch.device,
        pooling: str = "auto",
        layer: int = -1,
        flip: bool = False,
        tiles: int = 1,
        batch_size: int = 32,
        num_workers: int = -1,
        precision: str = "auto",
    ):
        """weights: the name by which `facts` know the encoder."""
        for name, value in (("tiles", tiles), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"--{name} {value}: expected at least 1")
        self.encoder, self.device = encoder, device
        if self.device.type == "cpu":
            disable_malloc_trim()
        self.dtype = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[
            choose_precision(precision, self.device)
        ]
        self.pooling, self.layer, self.flip, self.tiles = self.encoder.pooling(pooling), layer, flip, tiles
        self.batch_size, self.workers = batch_size, choose_num_workers(self.device) if num_workers < 0 else num_workers
        self.facts: dict[str, Any] = {
            "weights": weights,
            "key": key_of(self.encoder),
            "pooling": self.pooling,
            "layer": layer,
            "flip": flip,
            "tiles": tiles,
            "image_size": self.encoder.image_size,
        }

    def batches(
        self, paths: Sequence[Path], positions: Sequence[int], quiet: bool = False
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Batches of those positions, in order, and their vectors (images, D) float32."""
        files = ImageFiles(paths, positions, self.encoder.preprocess, self.encoder.image_size, self.tiles)
        with tqdm(total=len(positions), desc="提取特征", unit="img", disable=quiet, dynamic_ncols=True) as bar:
            for batch in read_batches(files, self.batch_size, self.workers, pin=self.device.type == "cuda"):
                yield batch, self.vectors(batch)
                bar.update(len(batch.positions) + len(batch.problems))

    def encode(self, paths: Sequence[Path]) -> np.ndarray:
        """-> (N, D) float32, unit length; ValueError where one cannot be used."""
        found = []
        for batch, vectors in self.batches(paths, range(len(paths)), quiet=True):
            if batch.problems:
                raise ValueError(next(iter(batch.problems.values())))
            found.append(vectors)
        return np.concatenate(found)

    @torch.inference_mode()
    def vectors(self, batch: Batch) -> np.ndarray:
        """-> (images, D) float32; of several tiles the mean of their vectors, at unit length."""
        if not batch.positions:
            return np.empty((0, 0), np.float32)
        amp = torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()
        with amp:
            parts = [
                self.encoder(pixels.to(self.device, non_blocking=True), self.pooling, self.layer, self.flip)
                for pixels in batch.pixels.split(self.batch_size)  # tiles make more of them than images
            ]
        found = torch.cat(parts)
        if max(batch.tiles) > 1:
            found = F.normalize(torch.stack([tiles.mean(0) for tiles in found.split(batch.tiles)]), dim=1)
        if not torch.isfinite(found).all():
            raise ValueError(f"{self.facts['weights']}: gives vectors that are not numbers (NaN)")
        return found.cpu().numpy()

    def shards(
        self, paths: Sequence[Path], numbers: Sequence[int], size: int, dtype: str
    ) -> Iterator[tuple[int, Shard]]:
        """Shard number n holds paths[n * size : (n + 1) * size]; each is given as soon as it is complete."""
        ends = {number: min((number + 1) * size, len(paths)) for number in numbers}
        positions = [at for number in numbers for at in range(number * size, ends[number])]
        open_shard = Shard([], [], {})
        for batch, vectors in self.batches(paths, positions) if positions else ():
            rows = dict(zip(batch.positions, zip(vectors, batch.digests)))
            for at in sorted([*rows, *batch.problems]):
                if at in rows:
                    vector, digest = rows[at]
                    open_shard.vectors.append(vector.astype(dtype))
                    open_shard.images.append([str(paths[at]), digest])
                else:
                    open_shard.skipped[str(paths[at])] = batch.problems[at]
                if at + 1 == ends[at // size]:
                    stacked = np.stack(open_shard.vectors) if open_shard.vectors else np.empty((0, 1), dtype)
                    yield at // size, open_shard._replace(vectors=stacked)
                    open_shard = Shard([], [], {})


def own_device(name: str) -> torch.device:
    """As choose_device, and with several processes each its own GPU."""
    local = os.environ.get("LOCAL_RANK", "")
    return choose_device(f"cuda:{local}" if name == "auto" and local and torch.cuda.is_available() else name)
