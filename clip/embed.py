"""Embeddings of many images and texts, in batches, for validation, evaluation and inference.

pairs -> image_vectors (N, D), text_vectors (M, D), image_of_text (M,), text_ids (M,), all on the CPU, of length 1
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from clip.dataset import PairDataset
from clip.model import CLIPModel
from common.cli.progress_bar import progress_bar
from common.metrics.retrieval import same_words
from common.models.eval_mode import eval_mode


class PairEmbeddings(NamedTuple):
    """N images and all their M texts."""

    image_vectors: torch.Tensor  # (N, D)
    text_vectors: torch.Tensor  # (M, D)
    image_of_text: torch.Tensor  # (M,) in 0..N-1, in order
    text_ids: torch.Tensor  # (M,) equal = the same words
    texts: list[str]

    @property
    def texts_of_image(self) -> list[list[str]]:
        """The texts of each of the N images."""
        texts: list[list[str]] = [[] for _ in self.image_vectors]
        for image, text in zip(self.image_of_text.tolist(), self.texts):
            texts[image].append(text)
        return texts


def embed_pairs(
    model: CLIPModel, dataset: PairDataset, device: torch.device, batch_size: int = 64, quiet: bool = False
) -> PairEmbeddings:
    """Every image of a data set, uncropped, and every one of its texts."""
    texts = [text for pair in dataset.pairs for text in pair.texts]
    return PairEmbeddings(
        embed_images(model, dataset, device, batch_size, quiet=quiet),
        embed_texts(model, texts, device, batch_size, quiet),
        torch.tensor([index for index, pair in enumerate(dataset.pairs) for _ in pair.texts]),
        same_words(texts),
        texts,
    )


@torch.inference_mode()
def embed_images(
    model: CLIPModel,
    dataset: PairDataset,
    device: torch.device,
    batch_size: int = 64,
    threads: int = 4,
    quiet: bool = False,
) -> torch.Tensor:
    """Every image of a data set, uncropped and read in several threads -> (N, D) unit vectors."""
    vectors, count = [], len(dataset)
    with ThreadPoolExecutor(threads) as pool, eval_mode(model):
        ahead = list(map(pool.submit, [dataset.__getitem__] * batch_size, range(min(batch_size, count))))
        for start in progress_bar(range(0, count, batch_size), desc="images", quiet=quiet):
            images = torch.stack([future.result()["image"] for future in ahead])  # (B, 3, S, S)
            ahead = [  # read while the model works
                pool.submit(dataset.__getitem__, index)
                for index in range(start + batch_size, min(start + 2 * batch_size, count))
            ]
            vectors.append(model.encode_image(images.to(device)).float().cpu())
    return torch.cat(vectors)


@torch.inference_mode()
def embed_texts(
    model: CLIPModel, texts: Sequence[str], device: torch.device, batch_size: int = 64, quiet: bool = False
) -> torch.Tensor:
    """-> (len(texts), D) unit vectors. Equal texts are encoded once and share one vector."""
    ordered = sorted(set(texts), key=lambda text: (len(text), text))  # texts of similar length share a batch
    position = {text: index for index, text in enumerate(ordered)}
    vectors = []
    with eval_mode(model):
        for start in progress_bar(range(0, len(ordered), batch_size), desc="texts", quiet=quiet):
            tokens = model.tokenize(ordered[start : start + batch_size])
            vectors.append(model.encode_text(tokens.to(device)).float().cpu())
    return torch.cat(vectors)[[position[text] for text in texts]]
