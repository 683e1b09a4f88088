"""Images of random colours, and an encoder whose vectors are colours."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.models.pooling import ImageEncoder
from common.vectors.extractor import Extractor, ExtractorOptions
from common.vectors.vector_store import VectorStore


class Colours(ImageEncoder):
    """Colours of the four quarters as a unit vector (12,); counts the images that it was shown."""

    has_native, image_size = True, 2

    def __init__(self, offset=128.0):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))
        self.seen = 0

    def preprocess(self, image):
        return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1)

    def native_vectors(self, pixels):
        self.seen += len(pixels)
        return F.normalize(pixels.float().flatten(1) - self.offset, dim=1)


def extractor_of(encoder):
    return Extractor(encoder, "colours", ExtractorOptions(batch_size=3, device="cpu"))


def draw_colours(folder, numbers=range(20), subfolders=("a", "b")):
    for number in numbers:
        random = np.random.default_rng(number)
        path = folder / subfolders[number % len(subfolders)] / f"图 {number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    return folder


def update(place, folder, encoder=None, **options):
    """-> the store, opened again, counts, and how many images were encoded for it"""
    encoder = encoder or Colours()
    extractor = extractor_of(encoder)
    try:
        store = VectorStore(place)
    except FileNotFoundError:
        store = VectorStore.create(place, folder, extractor.metadata, 12, **options)
    encoder.seen = 0
    counts = store.update(extractor, quiet=True)
    return VectorStore(place), counts, encoder.seen


def expected(store, query, k):
    cosines = dict(zip(store.paths, (store.vectors() @ query).tolist()))
    return sorted(cosines, key=lambda path: -cosines[path])[:k]
