"""Conversations to batches that a model learns from: labels on answers only.

Conversation -> text by the chat template -> ids, labels (-100 but for answers and their end token)
  -> batch: input_ids, attention_mask, labels (B, T), padded on the right, and the images as the processor gives them

The number of tokens of an image is asked of the processor, once for each size of image.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import ProcessorMixin

from common.images.io import open_image
from llava.conversations import Conversation
from llava.tokens import ChatFormatter, encode_images, message, pad, placeholder_id, splice

IGNORED = -100


class Sample(NamedTuple):
    """A conversation in tokens; each image is still one placeholder."""

    conversation: Conversation
    ids: list[int]
    labels: list[int]


class ConversationDataset(torch.utils.data.Dataset):
    """samples: of check_conversations. An item is a Sample with its images opened."""

    def __init__(self, samples: Sequence[Sample]):
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Sample, list[Image.Image]]:
        sample = self.samples[index]
        return sample, [open_image(path) for path in sample.conversation.images]


class Collator:
    """Items of ConversationDataset -> the model's forward arguments."""

    def __init__(self, processor: ProcessorMixin):
        self.processor = processor

    def __call__(self, items: list[tuple[Sample, list[Image.Image]]]) -> dict[str, torch.Tensor]:
        images = [image for _, opened in items for image in opened]
        runs, inputs = encode_images(self.processor, images) if images else ([], {})
        placeholder, taken, rows, labels = placeholder_id(self.processor), iter(runs), [], []
        for sample, opened in items:
            own = [next(taken) for _ in opened]
            rows.append(splice(sample.ids, placeholder, own))
            labels.append(splice_labels(sample, placeholder, own))
        tokenizer = self.processor.tokenizer
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        input_ids, mask = pad(rows, pad_id, left=False)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": pad(labels, IGNORED, left=False)[0], **inputs}


def splice_labels(sample: Sample, placeholder: int, runs: list[list[int]]) -> list[int]:
    remaining = iter(runs)
    pairs = zip(sample.ids, sample.labels)
    return [
        one for id_, label in pairs for one in ([IGNORED] * len(next(remaining)) if id_ == placeholder else [label])
    ]


def tokenise(conversation: Conversation, formatter: ChatFormatter, ends: Sequence[str]) -> Sample:
    """ends: texts of the tokens that end an answer, the usual one first.

    Where the template writes none behind an answer, as LLaVA 1.5's, it is put there: a model that never sees an end
    never learns to stop. What the template writes behind the end token is not learnt.
    """
    text, before, spans = "", "", []
    messages: list[dict[str, Any]] = []
    for question, answer, images in conversation.turns:
        messages.append(message("user", question, images))
        asked = formatter.render(messages, ask=True)
        messages.append(message("assistant", answer))
        whole = formatter.render(messages, ask=False)
        if not asked.startswith(before) or not whole.startswith(asked):
            raise ValueError("the chat template rewrites earlier turns, so answers cannot be told from questions")
        said, behind = _ended(whole[len(asked) :], ends)
        text += asked[len(before) :]
        spans.append((len(text), len(text) + len(said)))
        text, before = text + said + behind, whole
    encoded = formatter.encode(text, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    labels = [
        id_ if any(start <= first < last <= end for start, end in spans) else IGNORED
        for id_, (first, last) in zip(ids, encoded["offset_mapping"])
    ]
    return Sample(conversation, ids, labels)


def _ended(segment: str, ends: Sequence[str]) -> tuple[str, str]:
    """What a template writes for an answer -> up to its end token, what is behind that."""
    for end in ends:
        if end in segment:
            place = segment.rindex(end) + len(end)
            return segment[:place], segment[place:]
    return segment.rstrip() + ends[0], ""


def check_conversations(
    conversations: Sequence[Conversation],
    formatter: ChatFormatter,
    ends: Sequence[str],
    max_length: int,
    quiet: bool = False,
) -> tuple[list[Sample], dict[str, str]]:
    """Decode every image once, count tokens -> samples of at most max_length tokens, {what was left out: why}.

    Turns that do not fit are left out from the last on; a conversation of which not one turn fits is left out whole.
    """
    sizes = _image_sizes({path for one in conversations for path in one.images}, quiet)
    lengths: dict[tuple[int, int], int] = {}
    samples, skipped = [], {}
    for conversation in conversations:
        try:
            extra = 0
            for path in conversation.images:
                if isinstance(size := sizes[path], str):
                    raise ValueError(size)
                if size not in lengths:
                    lengths[size] = len(encode_images(formatter.processor, [Image.new("RGB", size)]).runs[0])
                extra += lengths[size] - 1
            samples.append(_fitting(conversation, formatter, ends, max_length - extra))
        except ValueError as error:
            skipped[conversation.key] = str(error)
    return samples, skipped


def _fitting(conversation: Conversation, formatter: ChatFormatter, ends: Sequence[str], room: int) -> Sample:
    for kept in range(len(conversation.turns), 0, -1):
        turns = conversation.turns[:kept]
        if sum(turn.images for turn in turns) < len(conversation.images):
            break
        sample = tokenise(conversation._replace(turns=turns), formatter, ends)
        if len(sample.ids) <= room:
            return sample
    raise ValueError(f"not one turn fits into --max_length: {len(sample.ids)} tokens of text for room of {room}")


def _image_sizes(paths: set[Path], quiet: bool) -> dict[Path, tuple[int, int] | str]:
    """-> {path: (width, height), or why it cannot be used}"""

    def look(path: Path) -> tuple[int, int] | str:
        try:
            return open_image(path).size
        except (ValueError, OSError) as error:
            return str(error)

    ordered = sorted(paths)
    with ThreadPoolExecutor() as pool:
        found = tqdm(pool.map(look, ordered), total=len(ordered), desc="checking images", disable=quiet, leave=False)
        return dict(zip(ordered, found))


def split_by_image(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """-> training, validation: about `share` of the images; all conversations about an image are on one side."""
    keys = [
        str(sample.conversation.images) if sample.conversation.images else sample.conversation.key for sample in samples
    ]
    names = sorted(set(keys))
    held = set(np.random.default_rng(seed).permutation(names)[: round(share * len(names))].tolist())
    sides: tuple[list[Sample], list[Sample]] = [], []
    for sample, key in zip(samples, keys):
        sides[key in held].append(sample)
    return sides
