"""What a cached image costs in each format: bytes, reading, keeping, and what is lost; against decoding the original.

    python benchmarks/image_cache.py FOLDER [--image_size 224] [--scale 1.5] [--count 400]

FOLDER: of images. Each is scaled to `scale * image_size` pixels of its shorter side, as common/images/cache.py does,
encoded, written to the store of the cache and read from it in another order; one thread, the kernel's cache warm.
"original": opened with Pillow's draft mode and scaled at every use, which is what happens without a cache. PSNR is of
the pixels after decoding; "augmented" of the training views cut from them.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.images.blob_store import BlobStore, stored_bytes
from common.images.cache import ImageCache
from common.images.io import list_images
from common.images.transforms import Augmentation, SampleKey

SAVED = {  # name -> arguments of Pillow's save
    "jpeg 95 4:4:4": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "jpeg 90 4:4:4": {"format": "JPEG", "quality": 90, "subsampling": 0},
    "webp 95, method 0": {"format": "WEBP", "quality": 95, "method": 0},
    "webp lossless, method 0": {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--scale", type=float, default=1.5)
    parser.add_argument("--count", type=int, default=400)
    args = parser.parse_args()
    paths = list_images(args.folder)
    paths = [paths[number * len(paths) // args.count] for number in range(min(args.count, len(paths)))]
    uncached = ImageCache(round(args.scale * args.image_size))
    seconds, pixels = timed(lambda: [uncached[path] for path in paths])
    print(f"{len(paths)} images of {args.folder}, shorter side {uncached.size} px")
    print(f"{'':24}{'bytes/image':>12}{'reads/s':>10}{'writes/s':>10}{'PSNR, dB':>10}{'augmented':>11}")
    size = sum(path.stat().st_size for path in paths) / len(paths)
    print(f"{'original, draft mode':24}{size:12,.0f}{len(paths) / seconds:10,.0f}")
    for name in ("uint8", *SAVED):
        measure(name, pixels, args.image_size)


def measure(name: str, pixels: list[np.ndarray], image_size: int) -> None:
    """Print the row of a format."""
    encode, decode = codec(name)
    keys = [f"{number:016}".encode() for number in range(len(pixels))]
    order = np.random.default_rng(0).permutation(len(pixels)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder, "a"), 10**12)
        writing, _ = timed(lambda: [store.put(key, encode(image)) for key, image in zip(keys, pixels)])
        closing, _ = timed(store.close)
        reading, read = timed(lambda: [decode(store.get(keys[index]), pixels[index].shape) for index in order])
        store.close()
        size = stored_bytes(Path(folder)) / len(pixels)
    pairs = [(image, pixels[index]) for index, image in zip(order, read)]
    quality = np.mean([psnr(*pair) for pair in pairs])
    augmented = np.mean([psnr(view(kept, image_size), view(exact, image_size)) for kept, exact in pairs[:100]])
    writes, reads = len(pixels) / (writing + closing), len(pixels) / reading
    print(f"{name:24}{size:12,.0f}{reads:10,.0f}{writes:10,.0f}{quality:10.1f}{augmented:11.1f}")


def codec(name: str) -> tuple[Callable, Callable]:
    if name == "uint8":
        return np.ndarray.tobytes, lambda data, shape: np.frombuffer(data, np.uint8).reshape(shape)

    def encode(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, **SAVED[name])
        return buffer.getvalue()

    return encode, lambda data, shape: np.asarray(Image.open(io.BytesIO(data)))


def view(pixels: np.ndarray, size: int) -> np.ndarray:
    return Augmentation()(pixels, size, SampleKey(0, 0))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(np.float32) - other).mean()
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def timed(function: Callable) -> tuple[float, list]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
