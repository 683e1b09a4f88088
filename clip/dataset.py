"""Data set of image-text pairs and its batches.

pairs -> image (B, 3, S, S) uint8, tokens (B, T), text_ids (B,) equal = the same words, group_ids (B,) character or -1

One of an image's texts is drawn each epoch. Formats of pairs: clip/pairs.py, clip/pair_files.py.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from clip.pair_files import INDEX_NAMES
from clip.pair_table import Pair, PairTable
from clip.pairs import CLONE, find_clone, find_pairs, has_pairs
from clip.preprocessing import Resize
from clip.tokenizer import EncodedTexts, Tokenizer, encode_texts
from common.cli.paths import ROOT, find_from_root
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey
from common.images.webdataset import TarMember
from common.metrics.retrieval import same_words
from common.samples import layouts
from common.samples.sample_folder import is_drawn
from common.text.columns import dictionary_codes
from common.text.padding import pad
from common.training.skip_log import SkipLog
from common.training.skipping_dataset import SkippingDataset
from common.training.splits import connect, draw_groups

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


def split_pairs(pairs: PairTable, share: float, seed: int = 0) -> tuple[PairTable, PairTable]:
    """-> training pairs, validation pairs (`share` of the images).

    Images of one character, images with the same first text, and links to one file are on the same side, so that
    memorised answers do not count.
    """
    count = min(max(1, round(share * len(pairs))), len(pairs) - 1) if share else 0
    encoded = pairs.split_words().dictionary_encode()
    words, numbers = dictionary_codes(encoded), np.arange(len(pairs))
    groups = connect(np.tile(numbers, 2), np.concatenate([words, len(encoded.dictionary) + pairs.files]), len(pairs))
    digests = b"".join(
        blake2b(f"{seed}/{word}".encode(), digest_size=8).digest() for word in encoded.dictionary.to_pylist()
    )
    draws = np.full(groups.max() + 1, np.iinfo(np.uint64).max)
    np.minimum.at(draws, groups, np.frombuffer(digests, ">u8").astype(np.uint64)[words])
    held_out = draw_groups(groups, np.argsort(draws, kind="stable"), count)
    is_held_out = np.isin(groups, np.fromiter(held_out, np.int64, len(held_out)))
    return pairs.select(~is_held_out), pairs.select(is_held_out)


class PairTexts(NamedTuple):
    """All M texts of N pairs, each of the U different ones encoded once."""

    tokens: EncodedTexts  # U
    numbers: np.ndarray  # (M,) in 0..U-1
    pair_of_text: np.ndarray  # (M,) in 0..N-1, in order
    ids: torch.Tensor  # (M,) equal = the same words


class PairViews:
    """Pixels and texts of a pair -> what a model is trained on.

    A SampleKey gives a random view with one of the texts, a pure function of the key, so loader workers hold no random
    state; an index, or no augmentation, gives the image as `resize` does and the first text.
    """

    def __init__(self, resize: Resize, tokenizer: Tokenizer, augmentation: Augmentation | None = None):
        self.resize, self.tokenizer, self.augmentation = resize, tokenizer, augmentation

    def view(
        self, pixels: np.ndarray, texts: Sequence[str], character: str, key: int | SampleKey
    ) -> dict[str, torch.Tensor]:
        augmentation, text = self.augmentation, texts[0]
        if isinstance(key, SampleKey) and augmentation:
            random = np.random.default_rng([augmentation.seed, key.epoch, key.index, 1])
            text = texts[random.integers(len(texts))]
            flip_prob = 0.0 if DIRECTIONS.search(text) else augmentation.flip_prob
            pixels = replace(augmentation, flip_prob=flip_prob)(pixels, self.resize.size, key)
            image = torch.tensor(pixels).permute(2, 0, 1)
        else:
            image = self.resize(Image.fromarray(pixels))
        return {
            "image": image,
            "tokens": torch.tensor(self.tokenizer.encode([text])[0][0]),
            "text_ids": torch.tensor(id_of(text)),
            "group_ids": torch.tensor(id_of(character) if character else -1),
        }

    def collate(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Stack; tokens are padded to the longest of the batch."""
        return {
            name: pad(rows, self.tokenizer.pad_id).values if name == "tokens" else torch.stack(rows)
            for name, rows in ((name, [item[name] for item in items]) for name in items[0])
        }


class PairDataset(SkippingDataset, PairViews):
    """dataset[index], dataset[SampleKey(...)] -> the view of a pair.

    skipped: collects the images that cannot be read, in whose place dataset[...] gives the next pair.
    """

    def __init__(
        self,
        pairs: PairTable,
        images: ImageCache,
        resize: Resize,
        tokenizer: Tokenizer,
        augmentation: Augmentation | None = None,
        skipped: SkipLog | None = None,
    ):
        PairViews.__init__(self, resize, tokenizer, augmentation)
        self.pairs, self.images, self.skipped = pairs, images, skipped or SkipLog(limit=1)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, key: int | SampleKey) -> dict[str, torch.Tensor] | None:
        pair = self.pairs[key.index if isinstance(key, SampleKey) else key]
        pixels = self._pixels(pair.image)
        return None if pixels is None else self.view(pixels, pair.texts, pair.character, key)

    def image(self, index: int) -> torch.Tensor | None:
        """(3, S, S) as `resize` gives it; None where it cannot be read."""
        pixels = self._pixels(self.pairs.images[index])
        return None if pixels is None else self.resize(Image.fromarray(pixels))

    def _pixels(self, image: Path | TarMember) -> np.ndarray | None:
        try:
            return self.images[image]
        except (ValueError, OSError) as error:
            self.skipped.add(str(image), error, self.pairs.total)
            return None

    @cached_property
    def texts(self) -> PairTexts:
        codes, pair_of_text = self.pairs.text_codes()
        codes, numbers = np.unique(codes, return_inverse=True)
        texts = self.pairs.texts_of(codes)
        return PairTexts(encode_texts(self.tokenizer, texts), numbers, pair_of_text, same_words(texts)[numbers])

    def file_of(self, index: int) -> str:
        return str(self.pairs.images[index])


def id_of(words: str) -> int:
    """63 bits, equal for equal words."""
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest()) >> 1
