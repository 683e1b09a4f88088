"""Conversations about images as batches, with labels on the answers only.

Conversation -> chat template -> input_ids, labels (-100 but for answers and their end token)
  -> batch: input_ids, attention_mask, labels (B, T), padded on the right, and the images as the processor returns them

The processor determines the number of tokens of an image; it is called once for each size of image.
"""

from bisect import bisect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from common.cli.progress_bar import progress_bar
from common.images.io import open_image
from common.text.chat_labels import IGNORED, LabelledTokens, label_answers, splice_images
from common.text.conversations import IMAGE, Conversation, Turn
from common.text.padding import pad
from common.training.splits import connected_groups, draw_groups, real_paths
from llava.tokens import ChatFormatter, encode_images, message, pad_token_id, placeholder_id


class TokenizedConversation(NamedTuple):
    conversation: Conversation
    tokens: LabelledTokens  # with one placeholder for each image


Item = tuple[TokenizedConversation, list[Image.Image]]


@dataclass(eq=False)
class ConversationDataset(torch.utils.data.Dataset):
    """Samples of tokenize_conversations; an item is a sample with its opened images."""

    samples: list[TokenizedConversation]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        return sample, [open_image(path) for path in sample.conversation.images]

    def lengths(self) -> list[int]:
        return [len(sample.tokens.input_ids) for sample in self.samples]


@dataclass(frozen=True)
class ConversationCollator:
    """Items of ConversationDataset -> arguments of the model's forward."""

    processor: ProcessorMixin

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        images = [image for _, opened in items for image in opened]
        runs, inputs = encode_images(self.processor, images) if images else ([], {})
        placeholder, remaining = placeholder_id(self.processor), iter(runs)
        rows = [
            splice_images(sample.tokens, placeholder, [next(remaining) for _ in opened]) for sample, opened in items
        ]
        input_ids, mask = pad([row.input_ids for row in rows], pad_token_id(self.processor.tokenizer))
        labels, _ = pad([row.labels for row in rows], IGNORED)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels, **inputs}


def tokenize(conversation: Conversation, formatter: ChatFormatter, end_tokens: Sequence[str]) -> TokenizedConversation:
    """end_tokens: texts of the tokens that end an answer, the usual one first.

    A system turn of the conversation takes the place of the formatter's system prompt.
    """
    messages = [] if conversation.system is None else [message("system", conversation.system)]
    for turn in conversation.turns:
        messages += [formatter.question(turn.question), message("assistant", turn.answer)]
    tokens = label_answers(messages, formatter.render, formatter.encode, end_tokens, conversation.is_trained)
    return TokenizedConversation(conversation, tokens)


def question_text(turn: Turn) -> str:
    """Without placeholders."""
    return turn.question.replace(IMAGE, "").strip()


def tokenize_conversations(
    conversations: Sequence[Conversation],
    formatter: ChatFormatter,
    end_tokens: Sequence[str],
    max_length: int,
    quiet: bool = False,
) -> tuple[list[TokenizedConversation], dict[str, str]]:
    """Decode every image once, count tokens -> samples of at most max_length tokens, {skipped conversation: reason}.

    Conversations that are too long lose turns from the last on; one whose first turn is too long is skipped.
    """

    @cache
    def run_length(size: tuple[int, int]) -> int:
        return len(encode_images(formatter.processor, [Image.new("RGB", size)]).runs[0])

    def fit(conversation: Conversation) -> TokenizedConversation:
        sizes = [sizes_or_errors[path] for path in conversation.images]
        if errors := [size for size in sizes if isinstance(size, Exception)]:
            raise errors[0]

        @cache
        def part(count: int) -> TokenizedConversation:
            return tokenize(conversation.first(count), formatter, end_tokens)

        def length(count: int) -> int:
            images = sizes[: len(part(count).conversation.images)]
            return len(part(count).tokens.input_ids) + sum(run_length(size) - 1 for size in images)

        count = total = len(conversation.turns)
        if length(total) > max_length:
            count = bisect(range(1, total), max_length, key=length)  # turns whose length is at most max_length
        if not count:
            raise ValueError(f"not even one turn fits into --max_length {max_length}: it has {length(1)} tokens")
        if all(label == IGNORED for label in part(count).tokens.labels):
            raise ValueError(f"no answer that is trained on fits into --max_length {max_length}")
        if count == total:
            return part(total)
        reason = f"{total - count} of its {total} turns do not fit into --max_length {max_length}"
        return part(count)._replace(conversation=part(count).conversation.trimmed_by(reason))

    paths = sorted({path for conversation in conversations for path in conversation.images})
    with ThreadPoolExecutor() as pool:
        sizes = progress_bar(pool.map(_size_or_error, paths), total=len(paths), desc="checking images", quiet=quiet)
        sizes_or_errors = dict(zip(paths, sizes))
    samples, skipped = [], {}
    for conversation in conversations:
        try:
            samples.append(fit(conversation))
        except (ValueError, OSError) as error:
            skipped[conversation.key] = str(error)
    return samples, skipped


def _size_or_error(path: Path) -> tuple[int, int] | Exception:
    """(width, height), or the reason why the image cannot be decoded."""
    try:
        return open_image(path).size
    except (ValueError, OSError) as error:
        return error


def split_by_image(
    samples: Sequence[TokenizedConversation], share: float, seed: int
) -> tuple[list[TokenizedConversation], list[TokenizedConversation]]:
    """-> training, validation: about `share` of the samples. Samples that share an image are on one side."""
    names = real_paths({path for sample in samples for path in sample.conversation.images}, by_content=True)
    groups = connected_groups([[names[path] for path in sample.conversation.images] for sample in samples])
    order = np.random.default_rng(seed).permutation(max(groups, default=-1) + 1).tolist()
    held_out = draw_groups(groups, order, round(share * len(samples)))
    train = [sample for sample, group in zip(samples, groups) if group not in held_out]
    return train, [sample for sample, group in zip(samples, groups) if group in held_out]
