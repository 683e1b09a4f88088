"""Instruction data: lines of JSONL files to samples and batches.

a line (meta_file.py) -> conversation, images -> tokens that fit, tiles -> input_ids, labels (T,),
    pixel_values (tiles, 3, S, S)
samples -> batch {input_ids, labels, attention_mask (B, T), pixel_values}; of packs also position_ids, sample_ids (B, T)
"""

import io
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.images.io import image_size, open_image
from common.images.tiling import Tiling
from common.text.chat_labels import IGNORED, LabelledTokens, splice_images
from common.text.conversations import Conversation
from common.text.padding import pad
from common.training.conversation_index import index_conversations, measure_lengths
from common.training.skip_log import SkipLog
from common.training.skipping_dataset import SkippingDataset
from common.training.trained_on import digest_of
from vitp.chat_template import ChatTemplate
from vitp.meta_file import Source, repeat

Sample = dict[str, torch.Tensor | str]


class InstructionDataset(SkippingDataset):
    """Samples of all sources, one source after the other.

    cache_dir: of the files' indexes (common/training/conversation_index.py) and of the samples' lengths.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        template: ChatTemplate,
        tiling: Tiling,
        max_seq_length: int,
        cache_dir: str | Path,
        seed: int = 0,
        skipped: SkipLog | None = None,
    ):
        self.sources, self.template, self.max_seq_length, self.seed = sources, template, max_seq_length, seed
        self.skipped, self.trimmed = skipped or SkipLog(), SkipLog(limit=1)
        self.logs = {"skipped": self.skipped, "trimmed": self.trimmed}
        self.cache_dir, self.epoch = cache_dir, 0
        self.tilings = [replace(tiling, max_tiles=source.max_tiles or tiling.max_tiles) for source in sources]
        self.indexes = [index_conversations(source.annotation, cache_dir) for source in sources]
        self.counts = {source.name: len(index) + len(index.skipped) for source, index in zip(sources, self.indexes)}
        for source, index in zip(sources, self.indexes):
            for number, reason in index.skipped.items():
                self.skipped.add(f"{source.annotation}:{number}", reason, sum(self.counts.values()))
            for number, reason in index.trimmed.items():
                self.trimmed.add(f"{source.annotation}:{number}", reason, len(index))
        places = [repeat(len(index), source) for source, index in zip(sources, self.indexes)]
        numbers = np.repeat(np.arange(len(places)), [len(place) for place in places])
        self.table = np.stack([numbers, np.concatenate(places)], 1).astype(np.int32)  # source, place in its index
        if not len(self.table):
            reason = ": ".join(next(iter(self.skipped.skipped.items()), ("the files", "empty")))
            raise ValueError(f"{', '.join(str(source.annotation) for source in sources)}: no usable sample; {reason}")

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> Sample | None:
        """-> input_ids, labels (T,), pixel_values (tiles, 3, S, S) if it has images, key; None for a broken sample."""
        number, place = self.table[index]
        source, tiling = self.sources[number], self.tilings[number]
        try:
            conversation = self.indexes[number][place]
            images = [open_image(source.file(name)) for name in conversation.images]
            random = np.random.default_rng((self.seed, self.epoch, index)) if source.data_augment else None
            sample, cut = make_sample(conversation, images, self.template, tiling, self.max_seq_length, random)
        except (ValueError, OSError) as error:
            self.skipped.add(self.key(index), error, len(self))
            return None
        if cut:
            self.trimmed.add(self.key(index), cut, len(self))
        return {**sample, "key": " ".join([self.key(index), *map(str, conversation.images)])}

    def lengths(self) -> list[int | None]:
        """Tokens of each sample, without decoding an image; None for unusable samples. Counted once, and cached."""
        lengths, total, text_digest = [], sum(self.counts.values()), self.template.digest
        for number, (source, tiling, index) in enumerate(zip(self.sources, self.tilings, self.indexes)):
            key = (index.digest, source.root, tiling, self.max_seq_length, text_digest)
            counted, reasons = measure_lengths(partial(self._length, number), len(index), self.cache_dir, key)
            for place, reason in reasons.items():
                self.skipped.add(f"{source.annotation}:{index.number(place)}", reason, total)
            lengths.append(counted)
        starts = np.cumsum([0, *map(len, lengths[:-1])])
        counts = np.concatenate(lengths)[starts[self.table[:, 0]] + self.table[:, 1]]
        return [length or None for length in counts.tolist()]

    def describe(self) -> str:
        """Number of conversations, and a digest of their files and of what the meta file says of each."""
        described = [
            (source.name, source.repeat_time, source.max_tiles, source.data_augment, index.digest)
            for source, index in zip(self.sources, self.indexes)
        ]
        return f"{sum(map(len, self.indexes))}, digest {digest_of(described)}"

    def set_epoch(self, epoch: int) -> None:
        """Augmentation depends on it."""
        self.epoch = epoch

    def key(self, index: int) -> str:
        """Annotation file and line number."""
        number, place = self.table[index]
        return f"{self.sources[number].annotation}:{self.indexes[number].number(place)}"

    def _length(self, number: int, place: int) -> int:
        source, conversation = self.sources[number], self.indexes[number][place]
        # Stated by json2jsonl.py, which spares opening the image.
        stated = conversation.record.get("width"), conversation.record.get("height")
        if len(conversation.images) == 1 and all(isinstance(side, int) and side > 0 for side in stated):
            sizes = [stated]
        else:
            sizes = [image_size(source.file(name)) for name in conversation.images]
        return len(fit(self.template, conversation, sizes, self.tilings[number], self.max_seq_length)[0].input_ids)


def make_sample(
    conversation: Conversation,
    images: Sequence[Image.Image],
    template: ChatTemplate,
    tiling: Tiling,
    max_length: int,
    random: np.random.Generator | None = None,
) -> tuple[Sample, str]:
    """-> input_ids, labels (T,), pixel_values (tiles, 3, S, S) if it has images; what is cut off.

    random: draws the JPEG quality of each tile, where tiles are compressed.
    """
    sizes = [image.size for image in images]
    tokens, limit, cut = fit(template, conversation, sizes, tiling, max_length)
    tiles = [tile for image in images for tile in tiling.cut(image, limit)]
    if random is not None:
        tiles = [_compress(tile, int(random.integers(75, 101))) for tile in tiles]
    num_tiles = tokens.input_ids.count(template.context_id) // tiling.tokens
    pixels = {"pixel_values": tiling.normalise(tiles[:num_tiles])} if num_tiles else {}
    return {"input_ids": torch.tensor(tokens.input_ids), "labels": torch.tensor(tokens.labels), **pixels}, cut


@dataclass(frozen=True)
class Collator:
    """Samples, packed or not -> a batch, padded on the right."""

    pad_token_id: int

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        padding = {"input_ids": self.pad_token_id, "labels": IGNORED, "position_ids": 0, "sample_ids": -1}
        padded = {
            name: pad([sample[name] for sample in samples], value)
            for name, value in padding.items()
            if name in samples[0]
        }
        return {
            **{name: rows.values for name, rows in padded.items()},
            "attention_mask": padded["input_ids"].mask,
            **join_pixels(samples),
        }


def join_pixels(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """-> {"pixel_values": (tiles, 3, S, S)} of all samples, {} where none has an image."""
    pixels = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
    return {"pixel_values": torch.cat(pixels)} if pixels else {}


def fit(
    template: ChatTemplate,
    conversation: Conversation,
    sizes: Sequence[tuple[int, int]],
    tiling: Tiling,
    max_length: int,
) -> tuple[LabelledTokens, int, str]:
    """sizes: (width, height) of each image -> tokens, at most max_length; the most tiles of an image; what is cut off.

    A conversation that is too long loses its last turns; if one turn alone is too long, its images get fewer tiles; at
    last its answer is cut (and has no end token). Image tokens are never cut.
    """
    whole, turn_ends = template.encode_turns(conversation)
    total = len(conversation.turns)

    @cache
    def encode(turns: int) -> LabelledTokens:
        if turn_ends or turns == total:
            return whole.cut(turn_ends[turns - 1] if turn_ends else len(whole.labels))
        return template.encode(conversation.first(turns))

    def image_tokens(turns: int, limit: int) -> list[int]:
        return [tiling.count(size, limit) * tiling.tokens for size in sizes[: len(conversation.first(turns).images)]]

    def length(turns: int) -> int:
        images = conversation.first(turns).images
        return len(encode(turns).input_ids) - len(images) + sum(image_tokens(turns, tiling.limit(len(images))))

    turns = total
    if length(total) > max_length:
        turns = max(1, bisect(range(1, total), max_length, key=length))
    limit = tiling.limit(len(conversation.first(turns).images))
    counts = image_tokens(turns, limit)
    text_length = length(turns) - sum(counts)
    while counts and text_length + sum(counts) > max_length and limit > tiling.min_tiles:
        limit -= 1
        counts = image_tokens(turns, limit)
    spliced = splice_images(encode(turns), template.context_id, [[template.context_id] * count for count in counts])
    cut = spliced.cut(max_length)
    if all(label == IGNORED for label in cut.labels):
        raise ValueError(
            f"{len(spliced.labels)} tokens with the fewest tiles; no room for an answer in "
            f"--max_seq_length {max_length}"
        )
    reasons = [f"{total - turns} of its {total} turns do not fit into --max_seq_length {max_length}"] * (turns < total)
    reasons += ["the end of its answer does not fit"] * (len(cut.labels) < len(spliced.labels))
    return cut, limit, "; ".join(reasons)


def _compress(image: Image.Image, quality: int) -> Image.Image:
    """JPEG artefacts of a tile: InternVL's data_augment, which draws a quality for each tile."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
