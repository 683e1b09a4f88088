"""Cache of decoded images: an image is decoded when it is first read, and kept for later epochs, processes and runs.

path -> decoded, shorter side to `size` -> encoded -> <folder>/<data>-<size>-.../blobs.sqlite (blob_store.py) -> pixels

Decoding usually limits the speed of image training. Nothing is decoded beforehand, so a start does not take longer with
more images: `check` reads a few of them, and an image that cannot be read is an error when it is first read. Pixels are
a pure function of file, size and format, whether they come from the cache or not; the key of an image holds its path,
size and time, so a changed file is decoded again. The folder must be on a disk of this machine, not on a network file
system.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from re import fullmatch, sub
from typing import Literal

import numpy as np
from PIL import Image

from common.cli.errors import printable
from common.images.blob_store import BlobStore, make_room, stored_bytes
from common.images.io import open_image
from common.images.webdataset import TarMember

CacheFormat = Literal["uint8", "jpeg"]
CACHE_SCALE = 1.5  # cached pixels per pixel of a model's input: a random crop then loses little sharpness
EDITION = 6  # of what is kept
CHECKED = 256  # images that are read before training
THREADS = 4  # that read them; Pillow decodes outside Python's lock
FREE_SHARE = 4  # by default a quarter of the free disk is used
JPEG_QUALITY = 95  # with colours at full resolution: 42 dB on photos; WebP is read at a fifth of the speed
OLD_FILES = r"[0-9a-f]{24}\.(bin|json)"  # of earlier versions


class ImageCache:
    """cache[path] -> (H, W, 3) uint8 with the shorter side at `size` pixels, smaller images as they are; read-only.

    folder: of all caches; None keeps nothing. limit_gb: of all caches in it; 0 = a quarter of the free disk and what
    the caches have. data: the folder or file that names the images; each has a cache of its own. format: uint8, the
    pixels as they are; jpeg, a fifth of the bytes; every image, kept or not, has its losses.
    ValueError or OSError, with the name of the file, for an image that cannot be read.
    """

    def __init__(
        self,
        size: int,
        folder: str | Path | None = None,
        limit_gb: float = 0.0,
        data: str | Path = "",
        quiet: bool = False,
        format: CacheFormat = "uint8",
    ):
        self.size, self.quiet, self.format = size, quiet, format
        self.store: BlobStore | None = None
        if folder is not None:
            folder = Path(folder)
            limit = int(limit_gb * 1e9) or stored_bytes(folder) + _free_bytes(folder) // FREE_SHARE
            self.store = BlobStore(folder / _name(data, size, format), limit)

    def __getitem__(self, path: Path | TarMember) -> np.ndarray:
        return self._unpack(self._value(path))

    def _value(self, path: Path | TarMember) -> bytes:
        """What is kept of an image."""
        if self.store is None:
            return self._pack(self._decode(path))
        key = _key(path)
        if (value := self.store.get(key)) is None:
            value = self._pack(self._decode(path))
            self.store.put(key, value)
        return value

    def check(self, paths: Sequence[Path | TarMember], count: int = 0) -> dict[str, str]:
        """Read at most `count` (CHECKED) of the images, evenly spread -> {path: reason} of those that cannot be read.

        Makes room for all of them and says, unless quiet, how much they take.
        """
        count = min(len(paths), count or CHECKED)
        checked = [paths[number * len(paths) // count] for number in range(count)]
        sizes: list[int] = []

        def attempt(path: Path | TarMember) -> str:
            try:
                sizes.append(len(self._value(path)))
            except (ValueError, OSError) as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(THREADS) as pool:
            reasons = list(pool.map(attempt, checked))
        if self.store and sizes:
            self._prepare(sum(sizes) // len(sizes) * len(paths))
        return {str(path): reason for path, reason in zip(checked, reasons) if reason}

    def _prepare(self, wanted: int) -> None:
        """wanted: bytes of all images."""
        assert self.store
        folder, limit = self.store.folder.parent, self.store.limit
        if self.quiet:
            return
        with suppress(OSError):  # a folder that cannot be changed
            old = [path for path in folder.iterdir() if fullmatch(OLD_FILES, path.name)]
            for path in old:
                path.unlink()
            removed = [f"{len(old)} files of an earlier version"] if old else []
            removed += make_room(folder, max(0, limit - wanted), self.store.folder)
            if removed:
                print(f"image cache {printable(folder)}: removed {', '.join(map(printable, removed))}")
        part = "" if wanted <= limit else "; the rest is decoded at each use"
        print(f"image cache {printable(folder)}: about {_size(wanted)} of at most {_size(limit)} (CACHE_GB){part}")

    def _decode(self, path: Path | TarMember) -> Image.Image:
        return fit_shorter_side(open_image(path, at_least=self.size), self.size)

    def _pack(self, image: Image.Image) -> bytes:
        if self.format == "uint8":
            return np.array(image.size, "<u4").tobytes() + image.tobytes()
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return buffer.getvalue()

    def _unpack(self, value: bytes) -> np.ndarray:
        if self.format == "uint8":
            width, height = np.frombuffer(value, "<u4", 2).tolist()
            return np.frombuffer(value, np.uint8, offset=8).reshape(height, width, 3)
        return np.asarray(Image.open(BytesIO(value), formats=["JPEG"]))


def fit_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the shorter side is `size` pixels; a smaller image is returned unchanged."""
    if (scale := size / min(image.size)) >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)


def _key(path: Path | TarMember) -> bytes:
    file, offset = (path.shard, path.offset) if isinstance(path, TarMember) else (path, 0)
    try:
        stat = file.stat()
    except OSError:  # reading it says what is wrong
        return b""
    words = f"{os.path.realpath(file)}\0{offset}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return blake2b(words.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _name(data: str | Path, size: int, format: str) -> str:
    """Of the cache of a data folder."""
    path = os.path.realpath(data)
    digest = blake2b(f"{EDITION} {path}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{sub(r'[^A-Za-z0-9_-]', '_', Path(path).name)[:40]}-{size}-{format}-{digest}"


def _free_bytes(folder: Path) -> int:
    """Of the disk of a folder that may not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(existing).free


def _size(number: int) -> str:
    """Bytes in words."""
    return f"{number / 1e6:.3g} MB" if number < 1e9 else f"{number / 1e9:.{1 if number < 1e10 else 0}f} GB"
