"""common.images.cache.ImageCache: a cache whose files are damaged gives the decoded pixels, or decodes again."""

import os
from contextlib import redirect_stderr
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from random import Random
from shutil import rmtree

import numpy as np
from PIL import Image

from benchmarks.doors import mutated
from common.images.blob_store import FILE
from common.images.cache import ImageCache
from common.images.io import open_image

SIZE = 6


def trial(random: Random, folder: Path) -> str:
    paths = [folder / f"{name}.png" for name in random.sample("abcdefgh", 3)]
    for number, path in enumerate(paths):
        path.write_bytes(_picture(random.randrange(8), number))
        os.utime(path, ns=(0, 0))
    images = ImageCache(SIZE, folder / "cache", quiet=True)
    for path in paths:
        images[path]
    assert images.store
    images.store.close()
    file = images.store.folder / FILE
    before = file.read_bytes()
    start = random.choice([0, 0, random.randrange(len(before))])  # the file's header is where damage matters most
    file.write_bytes(before[:start] + mutated(random, before[start : start + 4096]) + before[start + 4096 :])
    with redirect_stderr(StringIO()):
        for path in paths * 2:
            assert np.array_equal(images[path], np.asarray(open_image(path))), path
    images.store.close()
    rmtree(folder / "cache")
    return "read"


@cache
def _picture(seed: int, number: int) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE - number, SIZE + seed, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
