"""Pairs to a batch.

pairs -> image (B, 3, S, S) uint8, tokens (B, T), text_ids (B,) equal = the same words, group_ids (B,) character or -1

One of an image's texts is drawn each epoch. The formats that pairs are read from: clip/pairs.py.
"""

import re
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from clip.pairs import Pair, find_pairs
from clip.tokenizer import ClipTokenizer, HuggingFaceTokenizer, pad
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey, square
from common.samples import layouts

__all__ = ["Pair", "PairDataset", "create_sample_dataset", "find_pairs", "split_pairs"]
DIRECTIONS = re.compile(
    r"\b(left|right)(most|wards?|-hand)?\b|左|右", re.IGNORECASE
)  # words that a mirror makes untrue


def create_sample_dataset(
    root: str | Path, num_samples: int = 100, seed: int = 0, size: int = 128
) -> layouts.SampleDataset:
    """Drawn scenes with captions: data.json, images/, captions/ below `root`; nothing is downloaded."""
    return layouts.create_sample_dataset(root, num_samples, seed, layout="captions", size=size)


def split_pairs(pairs: list[Pair], share: float, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """-> training pairs, validation pairs (`share` of the images).

    Images of one character, and images whose first words are equal, fall on the same side: what was learnt by heart
    must not count.
    """

    def draw(pair: Pair) -> bytes:
        words = pair.name or pair.texts[0]
        return blake2b(f"{seed}/{words}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    draws = [draw(pair) for pair in pairs]
    wanted = min(max(1, round(share * len(pairs))), len(pairs) - 1) if share else 0
    border = sorted(draws)[wanted] if wanted < len(pairs) else b"\xff" * 9
    return (
        [pair for pair, drawn in zip(pairs, draws) if drawn >= border],
        [pair for pair, drawn in zip(pairs, draws) if drawn < border],
    )


class PairDataset(Dataset):
    """dataset[index] -> the image whole with its first text; dataset[SampleKey(...)] -> a random view of it with one of its
    texts, a pure function of the key, so loader workers hold no random state.

    `cut_texts` of `all_texts` texts are longer than the tokenizer's context and lose their end.
    """

    def __init__(
        self,
        pairs: list[Pair],
        images: ImageCache,
        image_size: int,
        tokenizer: ClipTokenizer | HuggingFaceTokenizer,
        augmentation: Augmentation | None = None,
    ):
        self.pairs, self.images, self.image_size, self.augmentation = pairs, images, image_size, augmentation
        self.pad_id = tokenizer.pad_id
        texts = list(dict.fromkeys(text for pair in pairs for text in pair.texts))
        tokens, self.cut_texts = tokenizer.encode(texts)
        self.all_texts = len(texts)
        # 32-bit arrays, not lists: millions of captions stay small, and workers share them.
        self.tokens = [np.asarray(one, dtype=np.int32) for one in tokens]
        self.text_ids = {text: number for number, text in enumerate(texts)}
        names = {name: number for number, name in enumerate(dict.fromkeys(pair.name for pair in pairs if pair.name))}
        self.group_ids = [names.get(pair.name, -1) for pair in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        view = key if isinstance(key, SampleKey) else None
        index = view.index if view else key
        texts, source = self.pairs[index].texts, self.images[self.pairs[index].image]
        text = texts[0]
        if view and self.augmentation:
            draw = np.random.default_rng([self.augmentation.seed, view.epoch, index, 1])
            text = texts[draw.integers(len(texts))]
            mirror = self.augmentation.flip_prob if not DIRECTIONS.search(text) else 0.0
            pixels = replace(self.augmentation, flip_prob=mirror)(source, self.image_size, view)
        else:
            pixels = square(source, self.image_size)
        text_id = self.text_ids[text]
        return {
            "image": torch.tensor(pixels).permute(2, 0, 1),  # a copy: the cache is read-only
            "tokens": torch.from_numpy(self.tokens[text_id]),
            "text_ids": torch.tensor(text_id),
            "group_ids": torch.tensor(self.group_ids[index]),
        }

    def file_of(self, index: int) -> str:
        return str(self.pairs[index].image)

    def collate(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Stack; tokens are padded to the longest of the batch."""
        batch = {name: torch.stack([item[name] for item in items]) for name in ("image", "text_ids", "group_ids")}
        return {
            "image": batch["image"],
            "tokens": pad([item["tokens"] for item in items], self.pad_id),
            "text_ids": batch["text_ids"],
            "group_ids": batch["group_ids"],
        }
