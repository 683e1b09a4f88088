"""common.images.cache.ImageCache: a cache whose files have changed since holds the decoded pixels again."""

import os
import pickle
from contextlib import redirect_stderr
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path
from random import Random
from shutil import rmtree

import numpy as np
from PIL import Image

from benchmarks.doors import mutated
from common.images.cache import ImageCache
from common.images.io import open_image

SIZE = 6


def trial(random: Random, folder: Path) -> str:
    names = random.sample("abcdefgh", 3)
    paths = [folder / f"{name}.png" for name in names]
    for number, path in enumerate(paths):
        path.write_bytes(b"" if random.random() < 0.1 else _picture(random.randrange(8), number))
        os.utime(path, ns=(0, 0))
    ImageCache(paths, SIZE, folder / "cache", threads=1, quiet=True)
    (changed,) = (folder / "cache").glob(f"*{random.choice(['.bin', '.json'])}")
    before = changed.read_bytes()
    changed.unlink()
    if random.random() < 0.9:
        changed.write_bytes(before if random.random() < 0.2 else mutated(random, before))
    after = changed.read_bytes() if changed.exists() else None
    with redirect_stderr(StringIO()) as errors:
        opened = pickle.loads(pickle.dumps(ImageCache(paths, SIZE, folder / "cache", threads=1, quiet=True)))
    if changed.suffix == ".bin":  # of JSON, a change of white space is none
        assert ("damaged" in errors.getvalue()) == (after != before)
    for path in paths:
        if str(path) in opened.skipped:
            assert not path.stat().st_size and path.name in opened.skipped[str(path)]
        else:
            assert np.array_equal(opened[path], np.asarray(open_image(path))), path
    rmtree(folder / "cache")
    return "read"


@cache
def _picture(seed: int, number: int) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE - number, SIZE + seed, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
