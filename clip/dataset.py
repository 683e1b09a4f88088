"""Data set of image-text pairs and its batches.

pairs -> image (B, 3, S, S) uint8, tokens (B, T), text_ids (B,) equal = the same words, group_ids (B,) character or -1

One of an image's texts is drawn each epoch. Formats of pairs: clip/pairs.py, clip/pair_files.py.
"""

import re
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from clip.pair_files import INDEX_NAMES
from clip.pairs import CLONE, Pair, find_clone, find_pairs, has_pairs
from clip.preprocessing import Resize
from clip.tokenizer import Tokenizer
from common.cli.paths import ROOT, find_from_root
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey
from common.samples import layouts
from common.samples.sample_folder import is_drawn
from common.text.padding import pad
from common.training.splits import connected_groups, draw_groups, real_paths

__all__ = ["Pair", "PairDataset", "create_sample_dataset", "find_data", "find_pairs", "split_pairs"]
DEFAULT_DATA = Path("data")  # the folder that may be replaced by AniPersonaCaps/ or filled with samples
SAMPLES = {True: 800, False: 100}  # drawn images with --demo and without
DIRECTIONS = re.compile(r"\b(left|right)(most|wards?|-hand)?\b|左|右", re.IGNORECASE)  # untrue of a mirrored image


def create_sample_dataset(
    root: str | Path, num_samples: int = 100, seed: int = 0, size: int = 128
) -> layouts.SampleDataset:
    """Generated scenes with captions: data.json, images/, captions/ below `root`; nothing is downloaded."""
    return layouts.create_sample_dataset(root, num_samples, seed, layout="captions", size=size)


def find_data(data_dir: str | Path, is_demo: bool, is_main: bool) -> Path:
    """The folder to train on. In place of ./data without pairs of the user's: AniPersonaCaps/, as cloned from the Hub.

    Samples are drawn where ./data, or the folder of a demo, is missing or empty; by the main process.
    """
    folder, is_default = Path(find_from_root(str(data_dir))), Path(data_dir) == DEFAULT_DATA
    if not is_default and not is_demo:
        return folder
    if is_default and (is_drawn(folder) or not has_pairs(folder)) and (clone := find_clone()):
        if is_main:
            print(f"data: {clone}, since {folder} holds none of yours")
        return clone
    if is_main:
        layouts.offer_samples(folder, SAMPLES[is_demo], layout="captions")
    if not has_pairs(folder):
        raise FileNotFoundError(
            f"{folder}: no {', '.join(INDEX_NAMES)}, images/ with captions/, *.tar or *.parquet, nor a folder {CLONE} "
            f"in {Path.cwd()} or {ROOT}; name your data with --data_dir, or try drawn samples with --demo"
        )
    return folder


def split_pairs(pairs: list[Pair], share: float, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """-> training pairs, validation pairs (`share` of the images).

    Images of one character, images with the same first text, and links to one file are on the same side, so that
    memorised answers do not count.
    """

    def words(pair: Pair) -> str:
        return pair.character or pair.texts[0]

    def draw(words: str) -> bytes:
        return blake2b(f"{seed}/{words}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    count = min(max(1, round(share * len(pairs))), len(pairs) - 1) if share else 0
    files = real_paths(pair.image for pair in pairs if isinstance(pair.image, Path))
    groups = connected_groups([(files.get(pair.image, pair.image), ("words", words(pair))) for pair in pairs])
    draws: dict[int, bytes] = {}
    for pair, group in zip(pairs, groups):
        draws[group] = min(draw(words(pair)), draws.get(group, b"\xff" * 9))
    held_out = draw_groups(groups, sorted(draws, key=draws.__getitem__), count)
    train = [pair for pair, group in zip(pairs, groups) if group not in held_out]
    return train, [pair for pair, group in zip(pairs, groups) if group in held_out]


class PairDataset(Dataset):
    """dataset[index] -> the image as `resize` gives it with its first text; dataset[SampleKey(...)] -> a random view of
    it with one of its texts, a pure function of the key, so loader workers hold no random state.

    `truncated_texts` of `unique_texts` texts are longer than the tokenizer's context and lose their end.
    """

    def __init__(
        self,
        pairs: list[Pair],
        images: ImageCache,
        resize: Resize,
        tokenizer: Tokenizer,
        augmentation: Augmentation | None = None,
    ):
        self.pairs, self.images, self.resize, self.augmentation = pairs, images, resize, augmentation
        self.pad_id = tokenizer.pad_id
        texts = list(dict.fromkeys(text for pair in pairs for text in pair.texts))
        tokens, self.truncated_texts = tokenizer.encode(texts)
        self.unique_texts = len(texts)
        # 32-bit arrays, not lists: millions of captions stay small, and workers share them.
        self.tokens = [np.asarray(row, dtype=np.int32) for row in tokens]
        self.text_ids = {text: number for number, text in enumerate(texts)}
        characters = {"": -1}  # name -> number
        self.group_ids = [characters.setdefault(pair.character, len(characters) - 1) for pair in pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        index = key.index if isinstance(key, SampleKey) else key
        pair, augmentation = self.pairs[index], self.augmentation
        source, text = self.images[pair.image], pair.texts[0]
        if isinstance(key, SampleKey) and augmentation:
            random = np.random.default_rng([augmentation.seed, key.epoch, index, 1])
            text = pair.texts[random.integers(len(pair.texts))]
            flip_prob = 0.0 if DIRECTIONS.search(text) else augmentation.flip_prob
            pixels = replace(augmentation, flip_prob=flip_prob)(source, self.resize.size, key)
            image = torch.tensor(pixels).permute(2, 0, 1)
        else:
            image = self.resize(Image.fromarray(source))
        text_id = self.text_ids[text]
        return {
            "image": image,
            "tokens": torch.from_numpy(self.tokens[text_id]),
            "text_ids": torch.tensor(text_id),
            "group_ids": torch.tensor(self.group_ids[index]),
        }

    def file_of(self, index: int) -> str:
        return str(self.pairs[index].image)

    def collate(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Stack; tokens are padded to the longest of the batch."""
        return {
            name: pad(rows, self.pad_id).values if name == "tokens" else torch.stack(rows)
            for name, rows in ((name, [item[name] for item in items]) for name in items[0])
        }
