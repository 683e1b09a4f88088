"""Embeddings of many images and texts, in batches, for validation, evaluation and inference.

pairs -> image_vectors (N, D), text_vectors (M, D), image_of_text (M,), text_ids (M,), all on the CPU, of length 1

Images that cannot be read are dropped with their texts, named in the data set's SkipLog. Different texts are encoded
once, and their tokens are kept with the data set.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clip.dataset import PairDataset
from clip.model import CLIPModel
from clip.pair_table import PairTable
from clip.tokenizer import EncodedTexts, encode_texts
from common.cli.progress_bar import progress_bar
from common.models.eval_mode import eval_mode
from common.text.padding import pad
from common.training.loader import LoaderProcess

THREADS = 4  # that read images where there are no loader processes


class PairEmbeddings(NamedTuple):
    """N images and all their M texts."""

    image_vectors: torch.Tensor  # (N, D)
    text_vectors: torch.Tensor  # (M, D)
    image_of_text: torch.Tensor  # (M,) in 0..N-1, in order
    text_ids: torch.Tensor  # (M,) equal = the same words
    pairs: PairTable  # N

    @property
    def texts(self) -> list[str]:
        """M"""
        return self.pairs.texts_of(self.pairs.text_codes()[0])


def embed_pairs(
    model: CLIPModel,
    dataset: PairDataset,
    device: torch.device,
    batch_size: int = 64,
    quiet: bool = False,
    num_workers: int = 0,
) -> PairEmbeddings:
    """Every readable image of a data set, uncropped, and every one of its texts."""
    image_vectors, readable = embed_images(model, dataset, device, batch_size, quiet, num_workers)
    texts = dataset.texts
    vectors = embed_tokens(model, texts.tokens, device, batch_size, quiet)
    chosen = readable[texts.pair_of_text]  # (M,)
    images = (np.cumsum(readable) - 1)[texts.pair_of_text[chosen]]
    return PairEmbeddings(
        image_vectors,
        vectors[torch.from_numpy(texts.numbers[chosen])],
        torch.from_numpy(images),
        texts.ids[torch.from_numpy(chosen)],
        dataset.pairs.select(readable),
    )


@torch.inference_mode()
def embed_images(
    model: CLIPModel,
    dataset: PairDataset,
    device: torch.device,
    batch_size: int = 64,
    quiet: bool = False,
    num_workers: int = 0,
) -> tuple[torch.Tensor, np.ndarray]:
    """The images of N pairs, uncropped -> unit vectors (R, D) of the readable ones, mask (N,) of these.

    num_workers: loader processes; 0 reads in threads.
    """
    vectors, readable = [], np.zeros(len(dataset), bool)
    is_pinned = device.type != "cpu"
    batches = _load(dataset, batch_size, num_workers, is_pinned) if num_workers else _read(dataset, batch_size)
    with eval_mode(model):
        for numbers, images in progress_bar(batches, "images", -(-len(dataset) // batch_size), quiet=quiet):
            if numbers:
                readable[numbers] = True
                vectors.append(model.encode_image(images.to(device, non_blocking=True)).float().cpu())
    if not vectors:
        raise ValueError(f"no image can be read, the first is {dataset.file_of(0)}")
    return torch.cat(vectors), readable


def embed_texts(
    model: CLIPModel, texts: Sequence[str], device: torch.device, batch_size: int = 64, quiet: bool = False
) -> torch.Tensor:
    """-> (len(texts), D) unit vectors. Equal texts are encoded once and share one vector."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(text, len(numbers)) for text in texts]
    return embed_tokens(model, encode_texts(model.tokenizer, list(numbers)), device, batch_size, quiet)[rows]


@torch.inference_mode()
def embed_tokens(
    model: CLIPModel, texts: EncodedTexts, device: torch.device, batch_size: int = 64, quiet: bool = False
) -> torch.Tensor:
    """-> (len(texts), D) unit vectors. Texts of similar length share a batch."""
    order = np.argsort(texts.lengths, kind="stable")
    vectors = []
    with eval_mode(model):
        for start in progress_bar(range(0, len(order), batch_size), desc="texts", quiet=quiet):
            rows = [texts[number] for number in order[start : start + batch_size]]
            tokens = pad(rows, model.tokenizer.pad_id).values
            vectors.append(model.encode_text(tokens.to(device)).float().cpu())
    result = torch.cat(vectors)
    return result[torch.from_numpy(np.argsort(order))]


Batch = tuple[list[int], torch.Tensor]  # numbers of the readable images, (B, 3, S, S)


def _read(dataset: PairDataset, batch_size: int) -> Iterator[Batch]:
    """Batches read in threads, the next one while the model works."""
    starts = range(0, len(dataset), batch_size)

    def submit(start: int) -> list[Future]:
        return [pool.submit(dataset.image, index) for index in range(start, min(start + batch_size, len(dataset)))]

    with ThreadPoolExecutor(THREADS) as pool:
        ahead = submit(0)
        for start in starts:
            now, ahead = ahead, submit(start + batch_size)
            yield _stack(list(enumerate((future.result() for future in now), start)))


def _load(dataset: PairDataset, batch_size: int, num_workers: int, pin_memory: bool) -> Iterable[Batch]:
    """Batches of loader processes."""
    return DataLoader(
        _NumberedImages(dataset),
        batch_size,
        num_workers=num_workers,
        collate_fn=_stack,
        worker_init_fn=LoaderProcess(),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the global one belongs to the training
    )


def _stack(images: list[tuple[int, torch.Tensor | None]]) -> Batch:
    readable = [(number, image) for number, image in images if image is not None]
    return [number for number, _ in readable], torch.stack([image for _, image in readable] or [torch.empty(0)])


@dataclass(frozen=True)
class _NumberedImages(Dataset):
    dataset: PairDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, torch.Tensor | None]:
        return number, self.dataset.image(number)
