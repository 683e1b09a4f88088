"""Many images and texts to vectors, a batch at a time: what validation, evaluation and inference have in common.

pairs -> image_vectors (N, D), text_vectors (M, D), image_of_text (M,), texts (M), all on the CPU, of length 1
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from tqdm import tqdm

from clip.dataset import PairDataset
from clip.model import CLIPModel


class Encoded(NamedTuple):
    """N images and all their M texts."""

    image_vectors: torch.Tensor  # (N, D)
    text_vectors: torch.Tensor  # (M, D)
    image_of_text: torch.Tensor  # (M,) in 0..N-1, in order
    texts: list[str]


def encode_pairs(
    model: CLIPModel, dataset: PairDataset, device: torch.device, batch_size: int = 64, quiet: bool = False
) -> Encoded:
    """Every image of a data set, whole, and every one of its texts."""
    texts = [text for pair in dataset.pairs for text in pair.texts]
    owners = [index for index, pair in enumerate(dataset.pairs) for _ in pair.texts]
    images = encode_images(model, lambda index: dataset[index]["image"], len(dataset), device, batch_size, quiet=quiet)
    return Encoded(images, encode_texts(model, texts, device, batch_size, quiet), torch.tensor(owners), texts)


@torch.inference_mode()
def encode_images(
    model: CLIPModel,
    read: Callable[[int], torch.Tensor],
    count: int,
    device: torch.device,
    batch_size: int = 64,
    threads: int = 4,
    quiet: bool = False,
) -> torch.Tensor:
    """read(index) -> (3, S, S) uint8, for 0 .. count - 1 and from several threads -> (count, D) unit vectors."""
    vectors = []
    with ThreadPoolExecutor(threads) as pool, at_rest(model):
        ahead = list(map(pool.submit, [read] * batch_size, range(min(batch_size, count))))
        for start in tqdm(range(0, count, batch_size), desc="images", leave=False, dynamic_ncols=True, disable=quiet):
            images = torch.stack([future.result() for future in ahead])  # (B, 3, S, S)
            following = range(start + batch_size, min(start + 2 * batch_size, count))
            ahead = [pool.submit(read, index) for index in following]  # read while the model works
            vectors.append(model.encode_image(images.to(device)).float().cpu())
    return torch.cat(vectors)


@torch.inference_mode()
def encode_texts(
    model: CLIPModel, texts: list[str], device: torch.device, batch_size: int = 64, quiet: bool = False
) -> torch.Tensor:
    """-> (len(texts), D) unit vectors. Equal texts are encoded once and have the very same vector."""
    known = {text: number for number, text in enumerate(sorted(set(texts), key=lambda text: (len(text), text)))}
    ordered = list(known)  # texts of about one length share a batch: it is as long as its longest
    vectors = []
    with at_rest(model):
        starts = range(0, len(ordered), batch_size)
        for start in tqdm(starts, desc="texts", leave=False, dynamic_ncols=True, disable=quiet):
            tokens = model.tokenize(ordered[start : start + batch_size]).to(device)
            vectors.append(model.encode_text(tokens).float().cpu())
    return torch.cat(vectors)[[known[text] for text in texts]]


@contextmanager
def at_rest(model: torch.nn.Module) -> Iterator[None]:
    """In eval mode, and afterwards in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
