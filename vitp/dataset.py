"""Files to samples.

a JSONL line -> conversation, images -> tokens that fit, tiles -> input_ids, labels (T,), pixel_values (tiles, 3, S, S),
and where the line stands
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from tqdm import tqdm

from common.images.io import open_image
from common.images.tiling import Tiling
from common.text.chat_labels import IGNORED, LabelledTokens, splice_images
from common.text.conversations import Conversation, parse_conversation
from common.text.json_text import parse_json
from common.training.skip_log import SkipLog
from vitp.chat_template import ChatTemplate
from vitp.meta import Source, index_lines, repeat

Sample = dict[str, torch.Tensor | str]


class InstructionDataset(Dataset):
    """Samples of all sources, one after the other. A sample that turns out broken gives way to the next."""

    def __init__(
        self,
        sources: Sequence[Source],
        template: ChatTemplate,
        tiling: Tiling,
        max_seq_length: int,
        skipped: SkipLog | None = None,
        seed: int = 0,
    ):
        self.sources, self.template, self.max_seq_length, self.seed = sources, template, max_seq_length, seed
        self.skipped, self.epoch = skipped or SkipLog(), 0
        self.tilings = [replace(tiling, max_tiles=one.max_tiles or tiling.max_tiles) for one in sources]
        table, bad = [], {}
        self.counts: dict[str, int] = {}  # samples that each source's file holds
        for which, source in enumerate(sources):
            lines, wrong = index_lines(source)
            self.counts[source.name] = len(lines) + len(wrong)
            table += [(which, *line) for line in repeat(lines, source)]
            bad |= wrong
        for where, reason in bad.items():
            self.skipped.add(where, reason, sum(self.counts.values()))
        self.table = np.array(table, dtype=np.int64).reshape(-1, 3)  # source, number and start of each line
        if not table:
            raise ValueError(f"{', '.join(str(source.annotation) for source in sources)}: no sample that can be used")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        for step in range(len(self)):
            sample = self.read(int(index + step) % len(self))
            if sample is not None:
                return sample
        raise ValueError("no sample can be read")

    def read(self, index: int) -> Sample | None:
        """-> input_ids, labels (T,), pixel_values (tiles, 3, S, S) where it has images; None for a broken sample."""
        try:
            source, tiling, conversation, _ = self._record(index)
            images = [open_image(source.root / name) for name in conversation.images]
            if source.data_augment:
                random = np.random.default_rng((self.seed, self.epoch, index))
                images = [_jpeg(image, int(random.integers(75, 101))) for image in images]
            tokens, limit = fit(
                self.template, conversation, [image.size for image in images], tiling, self.max_seq_length
            )
            tiles = [tiling.pixel_values(image, limit) for image in images]
        except (ValueError, OSError) as error:
            self.skipped.add(self.where(index), error, len(self))
            return None
        shown = tokens.input_ids.count(self.template.context_id) // tiling.tokens
        pixels = {"pixel_values": torch.cat(tiles)[:shown]} if shown else {}
        where = " ".join([self.where(index), *map(str, conversation.images)])
        ids, labels = torch.tensor(tokens.input_ids), torch.tensor(tokens.labels)
        return {"input_ids": ids, "labels": labels, "where": where, **pixels}

    def lengths(self) -> list[int | None]:
        """Tokens of each sample, without decoding an image; None for what cannot be used."""
        return [self._length(index) for index in tqdm(range(len(self)), desc="lengths", leave=False, disable=None)]

    def set_epoch(self, epoch: int) -> None:
        """For augmentation, which is drawn anew in each."""
        self.epoch = epoch

    def where(self, index: int) -> str:
        which, number, _ = self.table[index]
        return f"{self.sources[which].annotation}:{number}"

    def _record(self, index: int) -> tuple[Source, Tiling, Conversation, dict]:
        which, _, start = self.table[index]
        with self.sources[which].annotation.open("rb") as file:
            file.seek(start)
            record = parse_json(file.readline())
        return self.sources[which], self.tilings[which], parse_conversation(record), record

    def _length(self, index: int) -> int | None:
        try:
            source, tiling, conversation, record = self._record(index)
            told = _told_size(record) if len(conversation.images) == 1 else None
            sizes = [told or image_size(source.root / name) for name in conversation.images]
            return len(fit(self.template, conversation, sizes, tiling, self.max_seq_length)[0].input_ids)
        except (ValueError, OSError) as error:
            self.skipped.add(self.where(index), error, len(self))
            return None


def fit(
    template: ChatTemplate,
    conversation: Conversation,
    sizes: Sequence[tuple[int, int]],
    tiling: Tiling,
    max_length: int,
) -> tuple[LabelledTokens, int]:
    """sizes: (width, height) of each image -> tokens, at most max_length; the tiles that an image may have.

    What is too long loses its last turns; if one turn alone is, its images get fewer tiles; at last its answer is cut
    (and has no end token). Image tokens are never cut.
    """
    for turns in range(len(conversation.turns), 0, -1):
        part = conversation.first(turns)
        tokens, limit = template.encode(part), tiling.limit(len(part.images))
        while True:
            images = [tiling.count(size, limit) * tiling.tokens for size in sizes[: len(part.images)]]
            total = len(tokens.input_ids) - len(images) + sum(images)
            if total <= max_length:
                return _splice(tokens, template.context_id, images), limit
            if turns > 1 or limit == tiling.min_tiles or not images:
                break
            limit -= 1
    whole = _splice(tokens, template.context_id, images)
    if all(label == IGNORED for label in whole.labels[:max_length]):
        raise ValueError(
            f"{total} tokens with the fewest tiles; no room for an answer in --max_seq_length {max_length}"
        )
    return LabelledTokens(whole.input_ids[:max_length], whole.labels[:max_length]), limit


def _splice(tokens: LabelledTokens, context_id: int, counts: Sequence[int]) -> LabelledTokens:
    return splice_images(tokens, context_id, [[context_id] * count for count in counts])


def image_size(path: Path) -> tuple[int, int]:
    """-> width, height, upright, from the file's header alone."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations that swap the sides
            return image.size[::-1] if turned else image.size
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image that Pillow can read") from None


def _told_size(record: dict) -> tuple[int, int] | None:
    """What the annotation says of its only image, which spares opening it."""
    width, height = record.get("width"), record.get("height")
    both = isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
    return (width, height) if both else None


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    """What InternVL calls data_augment: the loss of a JPEG of this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
