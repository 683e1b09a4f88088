"""Instruction data: lines of JSONL files to samples and batches.

a line (meta_file.py) -> conversation, images -> tokens that fit, tiles -> input_ids, labels (T,),
    pixel_values (tiles, 3, S, S)
samples -> batch {input_ids, labels, attention_mask (B, T), pixel_values}; of packs also position_ids, sample_ids (B, T)
"""

import io
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from PIL import Image

from common.cli.progress_bar import progress_bar
from common.images.io import image_size, open_image
from common.images.tiling import Tiling
from common.text.chat_labels import IGNORED, LabelledTokens, splice_images
from common.text.conversations import Conversation, parse_conversation
from common.text.files import parse_json
from common.text.padding import pad
from common.training.skip_log import SkipLog
from common.training.skipping_dataset import SkippingDataset
from vitp.chat_template import ChatTemplate
from vitp.meta_file import Source, index_lines, repeat

Sample = dict[str, torch.Tensor | str]


class InstructionDataset(SkippingDataset):
    """Samples of all sources, one source after the other."""

    def __init__(
        self,
        sources: Sequence[Source],
        template: ChatTemplate,
        tiling: Tiling,
        max_seq_length: int,
        skipped: SkipLog | None = None,
        seed: int = 0,
        trimmed: SkipLog | None = None,
    ):
        self.sources, self.template, self.max_seq_length, self.seed = sources, template, max_seq_length, seed
        self.skipped, self.trimmed, self.epoch = skipped or SkipLog(), trimmed or SkipLog(limit=1), 0
        self.tilings = [replace(tiling, max_tiles=source.max_tiles or tiling.max_tiles) for source in sources]
        trimmed_lines: dict[str, str] = {}
        indexes = [index_lines(source, trimmed_lines) for source in sources]
        self.counts = {source.name: len(lines) + len(errors) for source, (lines, errors) in zip(sources, indexes)}
        for key, reason in (error for _, errors in indexes for error in errors.items()):
            self.skipped.add(key, reason, sum(self.counts.values()))  # of all samples in the files
        for key, reason in trimmed_lines.items():
            self.trimmed.add(key, reason, len(trimmed_lines))
        rows = [(number, *line) for number, (lines, _) in enumerate(indexes) for line in repeat(lines, sources[number])]
        self.table = np.array(rows, dtype=np.int64).reshape(-1, 3)  # source, line number, start of the line in bytes
        if not rows:
            reason = ": ".join(next(iter(self.skipped.skipped.items()), ("the files", "empty")))
            raise ValueError(f"{', '.join(str(source.annotation) for source in sources)}: no usable sample; {reason}")

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> Sample | None:
        """-> input_ids, labels (T,), pixel_values (tiles, 3, S, S) if it has images, key; None for a broken sample."""
        try:
            source, tiling, conversation = self._conversation(index)
            images = [open_image(source.file(name)) for name in conversation.images]
            sizes = [image.size for image in images]
            tokens, limit, cut = fit(self.template, conversation, sizes, tiling, self.max_seq_length)
            tiles = [tile for image in images for tile in tiling.cut(image, limit)]
            if source.data_augment:
                random = np.random.default_rng((self.seed, self.epoch, index))
                tiles = [_compress(tile, int(random.integers(75, 101))) for tile in tiles]
        except (ValueError, OSError) as error:
            self.skipped.add(self.key(index), error, len(self))
            return None
        if cut:
            self.trimmed.add(self.key(index), cut, len(self))
        num_tiles = tokens.input_ids.count(self.template.context_id) // tiling.tokens
        return {
            "input_ids": torch.tensor(tokens.input_ids),
            "labels": torch.tensor(tokens.labels),
            "key": " ".join([self.key(index), *map(str, conversation.images)]),
            **({"pixel_values": tiling.normalise(tiles[:num_tiles])} if num_tiles else {}),
        }

    def lengths(self) -> list[int | None]:
        """Tokens of each sample, without decoding an image; None for unusable samples."""
        return [self._length(index) for index in progress_bar(range(len(self)), desc="lengths")]

    def set_epoch(self, epoch: int) -> None:
        """Augmentation depends on it."""
        self.epoch = epoch

    def key(self, index: int) -> str:
        """Annotation file and line number."""
        number, line, _ = self.table[index]
        return f"{self.sources[number].annotation}:{line}"

    def _conversation(self, index: int) -> tuple[Source, Tiling, Conversation]:
        number, _, start = self.table[index]
        with self.sources[number].annotation.open("rb") as file:
            file.seek(start)
            conversation = parse_conversation(parse_json(file.readline()))
        return self.sources[number], self.tilings[number], conversation

    def _length(self, index: int) -> int | None:
        try:
            source, tiling, conversation = self._conversation(index)
            # Stated by json2jsonl.py, which spares opening the image.
            stated = conversation.record.get("width"), conversation.record.get("height")
            if len(conversation.images) == 1 and all(isinstance(side, int) and side > 0 for side in stated):
                sizes = [stated]
            else:
                sizes = [image_size(source.file(name)) for name in conversation.images]
            return len(fit(self.template, conversation, sizes, tiling, self.max_seq_length)[0].input_ids)
        except (ValueError, OSError) as error:
            self.skipped.add(self.key(index), error, len(self))
            return None


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
    encode = cache(lambda turns: template.encode(conversation.first(turns)))

    def image_tokens(turns: int, limit: int) -> list[int]:
        return [tiling.count(size, limit) * tiling.tokens for size in sizes[: len(conversation.first(turns).images)]]

    def length(turns: int) -> int:
        images = conversation.first(turns).images
        return len(encode(turns).input_ids) - len(images) + sum(image_tokens(turns, tiling.limit(len(images))))

    turns = total = len(conversation.turns)
    if length(total) > max_length:
        turns = max(1, bisect(range(1, total), max_length, key=length))
    limit = tiling.limit(len(conversation.first(turns).images))
    counts = image_tokens(turns, limit)
    text_length = length(turns) - sum(counts)
    while counts and text_length + sum(counts) > max_length and limit > tiling.min_tiles:
        limit -= 1
        counts = image_tokens(turns, limit)
    whole = splice_images(encode(turns), template.context_id, [[template.context_id] * count for count in counts])
    cut = LabelledTokens(whole.input_ids[:max_length], whole.labels[:max_length])
    if all(label == IGNORED for label in cut.labels):
        raise ValueError(
            f"{len(whole.labels)} tokens with the fewest tiles; no room for an answer in --max_seq_length {max_length}"
        )
    reasons = [f"{total - turns} of its {total} turns do not fit into --max_seq_length {max_length}"] * (turns < total)
    reasons += ["the end of its answer does not fit"] * (len(cut.labels) < len(whole.labels))
    return cut, limit, "; ".join(reasons)


def _compress(image: Image.Image, quality: int) -> Image.Image:
    """JPEG artefacts of a tile: InternVL's data_augment, which draws a quality for each tile."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
