"""Decoded images, kept: every file is read and checked once, then served as pixels from one memory-mapped file.

paths -> decode in threads, shorter side to `size` -> <cache_dir>/<key>.bin (pixels), <key>.json (where each lies)

Decoding is the usual loss of image training. The memory map is shared by all loader workers, processes and later
runs through the operating system's page cache; the key holds each file's path, size and time, so a changed file
makes a new store.
"""

import copy
import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.images.io import open_image
from common.images.webdataset import TarMember
from common.text.files import write_atomically

CACHE_SCALE = 1.5  # kept pixels per pixel of a model's input: a random crop then loses little sharpness


class ImageCache:
    """store[index] -> (H, W, 3) uint8 with the shorter side at `size`; `skipped` says what could not be read."""

    def __init__(
        self, paths: list[Path | TarMember], size: int, cache_dir: str | Path | None, threads: int = 4, quiet=False
    ):
        self.paths, self.size = paths, size
        self.pixels: np.ndarray | None = None
        self.places: list[tuple[int, int, int]] = []  # offset, height, width
        if cache_dir is None:
            self.skipped = _check_all(paths, threads, quiet)
        else:
            self._open(Path(cache_dir), threads, quiet)

    def __getitem__(self, index: int) -> np.ndarray:
        if self.pixels is None:
            return np.asarray(fit_shorter_side(open_image(self.paths[index], at_least=self.size), self.size))
        offset, height, width = self.places[index]
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def subset(self, indices: list[int]) -> "ImageCache":
        """The same pixels under new numbers 0 .. len(indices) - 1."""
        part = copy.copy(self)
        part.paths = [self.paths[index] for index in indices]
        part.places = [self.places[index] for index in indices] if self.places else []
        part.skipped = {}
        return part

    def _open(self, cache_dir: Path, threads: int, quiet: bool) -> None:
        name = cache_dir / _key(self.paths, self.size)
        pixels, index = name.with_suffix(".bin"), name.with_suffix(".json")
        if not index.is_file():  # written last: its presence says that the pixels are whole
            cache_dir.mkdir(parents=True, exist_ok=True)
            self._fill(pixels, index, threads, quiet)
        written = json.loads(index.read_text())
        self.places = [tuple(place) for place in written["places"]]
        self.skipped = {int(position): reason for position, reason in written["skipped"].items()}
        if pixels.stat().st_size:
            self.pixels = np.memmap(pixels, dtype=np.uint8, mode="r")

    def _fill(self, pixels: Path, index: Path, threads: int, quiet: bool) -> None:
        places, skipped, offset = [], {}, 0

        def decode(path: Path) -> np.ndarray | str:
            try:
                return np.asarray(fit_shorter_side(open_image(path, at_least=self.size), self.size))
            except (ValueError, OSError) as error:
                return str(error)

        with write_atomically(pixels) as file:
            for position, result in enumerate(_in_threads(decode, self.paths, threads, "decoding", quiet)):
                if isinstance(result, str):
                    skipped[position] = result
                    places.append((0, 0, 0))
                    continue
                file.write(result.tobytes())
                places.append((offset, *result.shape[:2]))
                offset += result.nbytes
        with write_atomically(index) as file:
            file.write(json.dumps({"places": places, "skipped": skipped}).encode())


def _check_all(paths: list[Path], threads: int, quiet: bool) -> dict[int, str]:
    def problem(path: Path) -> str:
        try:
            open_image(path)
        except (ValueError, OSError) as error:
            return str(error)
        return ""

    results = _in_threads(problem, paths, threads, "checking", quiet)
    return {position: reason for position, reason in enumerate(results) if reason}


def _in_threads(function, paths: list[Path], threads: int, what: str, quiet: bool) -> Iterable:
    """function(path) for each path, in order; Pillow decodes outside Python's lock, so threads are enough."""
    block = 64 * threads  # bounds what waits in memory
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(paths), desc=what, unit="img", disable=quiet, leave=False) as bar,
    ):
        for start in range(0, len(paths), block):
            for result in pool.map(function, paths[start : start + block]):
                bar.update()
                yield result


def fit_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the shorter side is `size` pixels; a smaller image is left as it is."""
    scale = size / min(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)


def _key(paths: list[Path], size: int) -> str:
    digest = hashlib.blake2b(f"2 {size}".encode(), digest_size=12)
    for path in paths:
        file, place = (path.shard, path.offset) if isinstance(path, TarMember) else (path, 0)
        stat = file.stat()
        line = f"\0{file.resolve()}\0{place}\0{stat.st_size}\0{stat.st_mtime_ns}"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
