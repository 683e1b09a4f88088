"""A collection of images that a page can ask: by a picture, or by words.

index of build_index.py, or a folder and a CLIP -> by_image(path, k), by_words(text, k) -> [(path, cosine)]
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from clip.embed import encode_texts
from clip.inference import image_encoder
from clip.model import CLIPModel
from common.images.io import open_image
from common.vectors.image_index import ImageIndex, key_of
from retrieval.search import encode, open_index

Found = list[tuple[Path, float]]  # images with their cosines, the most alike first


class Searcher(Protocol):
    def by_image(self, path: str, k: int) -> Found: ...

    def by_words(self, words: str, k: int) -> Found: ...


class IndexSearcher:
    """What build_index.py made; words are found where its vectors are a CLIP's."""

    def __init__(self, index_dir: str, weights: str = "", device: str = "auto"):
        self.collection, self.extractor = open_index(Path(index_dir), weights, device)

    def by_image(self, path: str, k: int) -> Found:
        return self._find(encode(self.extractor, [Path(path)], []), k)

    def by_words(self, words: str, k: int) -> Found:
        return self._find(encode(self.extractor, [], [words]), k)

    def _find(self, vectors: np.ndarray, k: int) -> Found:
        scores, paths = self.collection.search(vectors, k)
        return list(zip(paths[0], scores[0]))


class FolderSearcher:
    """A folder as it is now; its vectors are kept in it, and the next start encodes only what is new."""

    def __init__(self, folder: str, model: CLIPModel, device: torch.device):
        self.model, self.device, self.encode = model, device, image_encoder(model, device)
        self.index = ImageIndex(folder, self.encode, key_of(model, model.image_size))

    def by_image(self, path: str, k: int) -> Found:
        return self._find(self.encode([open_image(path)]), k)

    def by_words(self, words: str, k: int) -> Found:
        return self._find(encode_texts(self.model, [words], self.device, quiet=True), k)

    def _find(self, vectors: torch.Tensor, k: int) -> Found:
        scores, paths = self.index.search(vectors, k)
        return list(zip(paths[0], scores[0].tolist()))
