"""Cache of decoded images: every file is read and checked once, then served as pixels from one memory-mapped file.

paths -> decode in threads, shorter side to `size` -> <cache_dir>/<key>.bin (pixels), <key>.json (offset of each)

Decoding usually limits the speed of image training. The memory map is shared by all loader workers, processes and
later runs through the operating system's page cache; the key holds each file's path, size and time, so a changed file
makes a new cache.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from common.cli.progress_bar import progress_bar
from common.images.cache_files import MappedArray, map_array, read_cache_index, write_cache_index
from common.images.io import open_image
from common.images.webdataset import TarMember
from common.text.files import write_atomically

Sample = TypeVar("Sample", bound=Any)  # anything with an `.image`
CACHE_SCALE = 1.5  # cached pixels per pixel of a model's input: a random crop then loses little sharpness


class ImageCache:
    """cache[path] -> (H, W, 3) uint8 with the shorter side at `size`.

    `skipped`: {path: reason} of the files that could not be read. A cache that is damaged is made again. Without a
    cache_dir files are checked now and decoded again at every access.
    """

    def __init__(
        self,
        paths: Sequence[Path | TarMember],
        size: int,
        cache_dir: str | Path | None,
        threads: int = 4,
        quiet: bool = False,
    ):
        self.size, self.threads, self.quiet = size, threads, quiet
        self.pixels: MappedArray | None = None
        if cache_dir is None:
            results = self._in_threads(open_image, paths, "checking")
            self.skipped = {str(path): result for path, result in results if isinstance(result, str)}
            return
        pixels, index = (Path(cache_dir, _key(paths, size)).with_suffix(suffix) for suffix in (".bin", ".json"))
        content = read_cache_index(index)
        if content is None:
            index.parent.mkdir(parents=True, exist_ok=True)
            content = self._fill(paths, pixels)
            write_cache_index(index, content, [pixels])
        self.skipped = content["skipped"]
        self.entries = dict(zip(paths, content["entries"]))  # offset in bytes, height, width
        if size_in_bytes := pixels.stat().st_size:
            self.pixels = map_array(pixels, np.uint8, [size_in_bytes])

    def __getitem__(self, path: Path | TarMember) -> np.ndarray:
        if self.pixels is None:
            return self._decode(path)
        offset, height, width = self.entries[path]
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def readable(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples whose `.image` could be read."""
        return [sample for sample in samples if str(sample.image) not in self.skipped]

    def _decode(self, path: Path | TarMember) -> np.ndarray:
        return np.asarray(fit_shorter_side(open_image(path, at_least=self.size), self.size))

    def _fill(self, paths: Sequence[Path | TarMember], pixels: Path) -> dict[str, Any]:
        """Write the pixels -> offset, height and width of each image, and why others are skipped."""
        entries, skipped, offset = [], {}, 0
        with write_atomically(pixels) as file:
            for path, result in self._in_threads(self._decode, paths, "decoding"):
                if isinstance(result, str):
                    skipped[str(path)] = result
                    entries.append((0, 0, 0))
                    continue
                entries.append((offset, *result.shape[:2]))
                offset += file.write(result.tobytes())
        return {"entries": entries, "skipped": skipped}

    def _in_threads(self, function: Callable, paths: Sequence[Path | TarMember], label: str) -> Iterator[tuple]:
        """(path, function(path), or why the file cannot be read) for each path, in order.

        Pillow decodes outside Python's lock, so threads are enough.
        """

        def attempt(path: Path | TarMember) -> Any:
            try:
                return function(path)
            except (ValueError, OSError) as error:
                return str(error)

        block = 64 * self.threads  # limits the number of results that wait in memory
        with (
            ThreadPoolExecutor(self.threads) as pool,
            progress_bar(total=len(paths), desc=label, unit="img", quiet=self.quiet) as bar,
        ):
            for start in range(0, len(paths), block):
                part = paths[start : start + block]
                for path, result in zip(part, pool.map(attempt, part)):
                    bar.update()
                    yield path, result


def fit_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the shorter side is `size` pixels; a smaller image is returned unchanged."""
    if (scale := size / min(image.size)) >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)


def _key(paths: Sequence[Path | TarMember], size: int) -> str:
    key = f"4 {size}"
    for path in paths:
        file, offset = (path.shard, path.offset) if isinstance(path, TarMember) else (path, 0)
        try:
            stat = file.stat()
            key += f"\0{file.resolve()}\0{offset}\0{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError:  # gone since it was listed: it is skipped by name
            key += f"\0{file}\0gone"
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
