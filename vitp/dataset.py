"""Instruction data: the meta file and lines of JSONL files to samples and batches.

meta.json {name: {root, annotation, repeat_time, max_dynamic_patch, data_augment, length}} -> Source
a JSONL line -> conversation, images -> tokens that fit, tiles -> input_ids, labels (T,), pixel_values (tiles, 3, S, S)
samples -> batch {input_ids, labels, attention_mask (B, T), pixel_values}; of packs also position_ids, sample_ids (B, T)
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from common.cli.paths import find_from_root
from common.cli.progress_bar import progress_bar
from common.images.io import open_header, open_image, orientation
from common.images.tiling import Tiling
from common.text.chat_labels import IGNORED, LabelledTokens, splice_images
from common.text.conversations import Conversation, parse_conversation
from common.text.files import parse_json, read_json
from common.text.padding import pad
from common.training.skip_log import SkipLog
from vitp.chat_template import ChatTemplate

Sample = dict[str, torch.Tensor | str]


@dataclass(frozen=True)
class Source:
    """One entry of the meta file."""

    name: str
    root: Path
    annotation: Path
    repeat_time: float = 1  # below 1: this share of the file, from its start
    max_tiles: int | None = None  # in place of --max_dynamic_patch
    data_augment: bool = False
    length: int | None = None  # number of samples, as the meta file states it


def read_meta(path: str | Path) -> list[Source]:
    """Paths in it are relative to the working directory, to the meta file's folder, or to the repository."""
    path = find_from_root(str(path))
    entries = read_json(path, "--meta_path")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f'{path}: expected {{"name": {{"root": ..., "annotation": ...}}}}')
    return [_source(Path(path), name, entry) for name, entry in entries.items()]


class SkippingDataset(Dataset):
    """Of read(index), which is None for a broken sample: the next one takes its place."""

    def __getitem__(self, index: int) -> Sample:
        for step in range(len(self)):
            if (sample := self.read(int(index + step) % len(self))) is not None:
                return sample
        raise ValueError("no sample can be read")


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
    ):
        self.sources, self.template, self.max_seq_length, self.seed = sources, template, max_seq_length, seed
        self.skipped, self.epoch = skipped or SkipLog(), 0
        self.tilings = [replace(tiling, max_tiles=source.max_tiles or tiling.max_tiles) for source in sources]
        indexes = [index_lines(source) for source in sources]
        self.counts = {source.name: len(lines) + len(errors) for source, (lines, errors) in zip(sources, indexes)}
        for key, reason in (error for _, errors in indexes for error in errors.items()):
            self.skipped.add(key, reason, sum(self.counts.values()))  # of all samples in the files
        rows = [(number, *line) for number, (lines, _) in enumerate(indexes) for line in repeat(lines, sources[number])]
        self.table = np.array(rows, dtype=np.int64).reshape(-1, 3)  # source, line number, start of the line in bytes
        if not rows:
            raise ValueError(f"{', '.join(str(source.annotation) for source in sources)}: no usable sample")

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int) -> Sample | None:
        """-> input_ids, labels (T,), pixel_values (tiles, 3, S, S) if it has images, key; None for a broken sample."""
        try:
            source, tiling, conversation = self._conversation(index)
            images = [open_image(source.root / name) for name in conversation.images]
            sizes = [image.size for image in images]
            tokens, limit = fit(self.template, conversation, sizes, tiling, self.max_seq_length)
            tiles = [tile for image in images for tile in tiling.cut(image, limit)]
            if source.data_augment:
                random = np.random.default_rng((self.seed, self.epoch, index))
                tiles = [_compress(tile, int(random.integers(75, 101))) for tile in tiles]
        except (ValueError, OSError) as error:
            self.skipped.add(self.key(index), error, len(self))
            return None
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
                sizes = [image_size(source.root / name) for name in conversation.images]
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
) -> tuple[LabelledTokens, int]:
    """sizes: (width, height) of each image -> tokens, at most max_length; the most tiles of an image.

    A conversation that is too long loses its last turns; if one turn alone is too long, its images get fewer tiles; at
    last its answer is cut (and has no end token). Image tokens are never cut.
    """
    for turns in range(len(conversation.turns), 0, -1):
        part = conversation.first(turns)
        tokens, limit = template.encode(part), tiling.limit(len(part.images))
        while True:
            counts = [tiling.count(size, limit) * tiling.tokens for size in sizes[: len(part.images)]]
            length = len(tokens.input_ids) - len(counts) + sum(counts)
            if length <= max_length or turns > 1 or limit == tiling.min_tiles or not counts:
                break
            limit -= 1
        if length <= max_length:
            break
    whole = splice_images(tokens, template.context_id, [[template.context_id] * count for count in counts])
    cut = LabelledTokens(whole.input_ids[:max_length], whole.labels[:max_length])
    if all(label == IGNORED for label in cut.labels):
        raise ValueError(
            f"{length} tokens with the fewest tiles; no room for an answer in --max_seq_length {max_length}"
        )
    return cut, limit


def index_lines(source: Source) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """-> (number from 1, start in bytes) of each line with a conversation, {"file:number": error} of the others."""
    lines, errors, start = [], {}, 0
    with source.annotation.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.strip():
                    parse_conversation(parse_json(line))
                    lines.append((number, start))
            except ValueError as error:
                errors[f"{source.annotation}:{number}"] = str(error)
            start += len(line)
    return lines, errors


def repeat(lines: list, source: Source) -> list:
    """repeat_time copies; below 1, this share from the start."""
    if source.repeat_time < 1:
        return lines[: max(1, int(len(lines) * source.repeat_time))]
    return lines * int(source.repeat_time)


def image_size(path: Path) -> tuple[int, int]:
    """-> width, height, upright, from the file's header alone."""
    with open_header(path) as image:
        return image.size[::-1] if orientation(image) >= 5 else image.size


def _compress(image: Image.Image, quality: int) -> Image.Image:
    """JPEG artefacts of a tile: InternVL's data_augment, which draws a quality for each tile."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _source(meta: Path, name: str, entry: dict) -> Source:
    if not isinstance(entry, dict) or "annotation" not in entry:
        raise ValueError(f"{meta}: '{name}' names no annotation")
    paths = {}
    for key in ("root", "annotation"):
        path = Path(entry.get(key, ""))
        beside = meta.parent / path
        paths[key] = beside if beside.exists() and not path.exists() else Path(find_from_root(str(path)))
        if not paths[key].exists():
            raise FileNotFoundError(f"{path}: no such {key} of '{name}' ({meta}), nor below {meta.parent}")
    times, tiles = entry.get("repeat_time", 1), entry.get("max_dynamic_patch")
    if not (isinstance(times, int | float) and times > 0 and (tiles is None or isinstance(tiles, int) and tiles > 0)):
        raise ValueError(f"{meta}: '{name}': repeat_time {times} and max_dynamic_patch {tiles} must be above 0")
    return Source(
        name,
        **paths,
        repeat_time=times,
        max_tiles=tiles,
        data_augment=bool(entry.get("data_augment")),
        length=entry.get("length"),
    )
