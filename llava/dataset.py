"""Conversations about images as batches, with labels on the answers only.

Conversation -> chat template -> input_ids, labels (-100 but for answers and their end token)
  -> batch: input_ids, attention_mask, labels (B, T), padded on the right, and the images as the processor returns them

The processor determines the number of tokens of an image; it is called once for each size of image.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from common.images.io import image_size, open_image
from common.text.chat_labels import IGNORED, LabelledTokens, label_turns, splice_images
from common.text.conversations import IMAGE, Conversation, Turn
from common.text.files import check_file
from common.text.padding import pad
from common.text.values import file_name_of
from common.training.conversation_index import ConversationIndex, index_conversations, measure_lengths
from common.training.skip_log import SkipLog
from common.training.skipping_dataset import SkippingDataset
from common.training.splits import connect, connected_groups, draw_groups, real_paths
from common.training.trained_on import digest_of
from llava.independent_turns import number_turns, separate_turns, tokenize_apart
from llava.tokens import (
    ChatFormatter,
    EncodedImages,
    encode_images,
    message,
    pad_token_id,
    placeholder_id,
    splice_types,
)

COMPARED = 20_000  # images at most whose files are compared to tell which are equal


class TokenizedConversation(NamedTuple):
    conversation: Conversation
    tokens: LabelledTokens  # with one placeholder for each image
    turn_numbers: list[int] = []  # of each token, where turns are independent


Item = tuple[TokenizedConversation, list[Image.Image]]


class ConversationTokenizer:
    """Conversations as tokens, at most max_length of them with those of the images.

    end_tokens: texts of the tokens that end an answer, the usual one first. independent_turns: see
    llava/independent_turns.py.
    """

    def __init__(
        self, formatter: ChatFormatter, end_tokens: Sequence[str], max_length: int, independent_turns: bool = False
    ):
        self.formatter, self.end_tokens, self.max_length = formatter, end_tokens, max_length
        self.independent_turns, self.placeholder = independent_turns, placeholder_id(formatter.processor)
        self.run_lengths: dict[tuple[tuple[int, int], int], int] = {}  # size of an image, their number -> tokens

    def __call__(self, conversation: Conversation, sizes: Sequence[tuple[int, int]]) -> TokenizedConversation:
        """sizes: (width, height) of each image. ValueError where no answer fits.

        A conversation that is too long loses turns from the last on.
        """
        whole, turn_ends = self._tokens(conversation)
        image_counts = np.cumsum([turn.images for turn in conversation.turns]).tolist()
        total = len(conversation.turns)

        @cache
        def tokens(count: int) -> LabelledTokens:
            if turn_ends or count == total:
                return whole.cut(turn_ends[count - 1] if turn_ends else len(whole.labels))
            return self._tokens(conversation.first(count))[0]

        def length(count: int) -> int:
            return len(tokens(count).input_ids) + self.added_length(sizes[: image_counts[count - 1]])

        count = total
        if length(total) > self.max_length:
            count = bisect(range(1, total), self.max_length, key=length)  # turns whose length is at most max_length
        if not count:
            raise ValueError(f"not even one turn fits into --max_length {self.max_length}: it has {length(1)} tokens")
        if all(label == IGNORED for label in tokens(count).labels):
            raise ValueError(f"no answer that is trained on fits into --max_length {self.max_length}")
        if count < total:
            reason = f"{total - count} of its {total} turns do not fit into --max_length {self.max_length}"
            conversation = conversation.first(count).trimmed_by(reason)
        kept = tokens(count)
        numbers = number_turns(kept.input_ids, turn_ends, self.placeholder) if self.independent_turns else []
        return TokenizedConversation(conversation, kept, numbers)

    def _tokens(self, conversation: Conversation) -> tuple[LabelledTokens, list[int]]:
        if self.independent_turns:
            return tokenize_apart(conversation, lambda turn: self._together(turn)[0], self.placeholder)
        return self._together(conversation)

    def _together(self, conversation: Conversation) -> tuple[LabelledTokens, list[int]]:
        return tokenize(conversation, self.formatter, self.end_tokens)

    def added_length(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of the images of a conversation, (width, height), less one placeholder for each."""
        for key in {(size, len(sizes)) for size in sizes} - self.run_lengths.keys():
            images = [Image.new("RGB", key[0])] * len(sizes)
            self.run_lengths[key] = len(encode_images(self.formatter.processor, [images]).runs[0])
        return sum(self.run_lengths[size, len(sizes)] - 1 for size in sizes)

    def length(self, conversation: Conversation) -> int:
        """Tokens of a conversation, of whose images only the headers are read."""
        sizes = [image_size(path) for path in conversation.images]
        sample = self(conversation, sizes)
        return len(sample.tokens.input_ids) + self.added_length(sizes[: len(sample.conversation.images)])

    @property
    def digest(self) -> str:
        """Of all by which conversations become tokens."""
        formatter, processor = self.formatter, self.formatter.processor
        text = (processor.tokenizer.backend_tokenizer.to_str(), formatter.system, self.end_tokens, self.max_length)
        text += (self.independent_turns,)
        template = processor.chat_template or processor.tokenizer.chat_template
        return digest_of((type(processor).__name__, processor.image_processor.to_dict(), template, *text))


@dataclass(eq=False)
class ConversationDataset(SkippingDataset):
    """Some conversations of an index; an item is a conversation's tokens with its opened images.

    root: folder of the images. places: in the index. cache_dir: of the samples' lengths.
    """

    index: ConversationIndex
    root: Path
    tokenizer: ConversationTokenizer
    places: np.ndarray
    cache_dir: str | Path
    skipped: SkipLog = field(default_factory=SkipLog)
    trimmed: SkipLog = field(default_factory=lambda: SkipLog(limit=1))

    def __len__(self) -> int:
        return len(self.places)

    def read(self, number: int) -> Item | None:
        """None for a broken sample."""
        try:
            conversation = self.conversation(number)
            images = [open_image(path) for path in conversation.images]
            sample = self.tokenizer(conversation, [image.size for image in images])
        except (ValueError, OSError) as error:
            self.skipped.add(self.key(number), error, len(self))
            return None
        if sample.conversation.trimmed:
            self.trimmed.add(self.key(number), sample.conversation.trimmed, len(self))
        return sample, images[: len(sample.conversation.images)]

    def conversation(self, number: int) -> Conversation:
        """With the paths of its images."""
        conversation = self._record(int(self.places[number]))
        return replace(conversation, key=self.key(number))

    def key(self, number: int) -> str:
        """File and line."""
        return record_key(self.index, self.index.number(int(self.places[number])))

    def lengths(self) -> list[int]:
        """Tokens of each sample, without decoding an image; 0 for unusable samples. Counted once, and cached."""
        key = (self.index.digest, self.root, self.tokenizer.digest)
        lengths, reasons = measure_lengths(self._length, len(self.index), self.cache_dir, key)
        for place, reason in reasons.items():
            self.skipped.add(record_key(self.index, self.index.number(place)), reason, len(self.index))
        return lengths[self.places].tolist()

    @property
    def logs(self) -> dict[str, SkipLog]:
        return {"skipped": self.skipped, "trimmed": self.trimmed}

    def describe(self) -> str:
        """Number of conversations, and a digest of the file and of the choice from it."""
        return f"{len(self)}, digest {digest_of((self.index.digest, self.places.tobytes()))}"

    def select(self, numbers: np.ndarray) -> "ConversationDataset":
        """Some of the samples, with the same logs."""
        return replace(self, places=self.places[numbers])

    def image_groups(self) -> np.ndarray:
        """Of each sample the number of its group (N,); samples that share an image are in one.

        Images are equal if their files are, by links or content; of more than COMPARED, if their names are.
        """
        samples = np.repeat(np.arange(len(self.index)), self.index.rows["images"])
        kept = np.isin(samples, self.places)
        names, codes = np.unique(self.index.images[kept], return_inverse=True)
        if len(names) > COMPARED:
            numbers = np.searchsorted(self.places, samples[kept])  # places rise
            return connect(numbers, codes, len(self))
        images = [self.conversation(number).images for number in range(len(self))]
        real = real_paths({path for paths in images for path in paths})
        return np.array(connected_groups([[real[path] for path in paths] for paths in images]))

    def _length(self, place: int) -> int:
        return self.tokenizer.length(self._record(place))

    def _record(self, place: int) -> Conversation:
        conversation = self.index[place]
        names = tuple(self.root / file_name_of(name, self.root) for name in conversation.images)
        return replace(conversation, images=names)


@dataclass(frozen=True)
class ConversationCollator:
    """Items of ConversationDataset -> arguments of the model's forward."""

    processor: ProcessorMixin

    def __call__(self, items: list[Item]) -> dict[str, torch.Tensor]:
        groups = [opened for _, opened in items if opened]
        encoded = encode_images(self.processor, groups) if groups else EncodedImages([], {}, {})
        placeholder, ends = placeholder_id(self.processor), np.cumsum([len(opened) for _, opened in items])
        own = [slice(end - len(opened), end) for (_, opened), end in zip(items, ends)]  # images of each row
        rows = [splice_images(sample.tokens, placeholder, encoded.runs[some]) for (sample, _), some in zip(items, own)]
        input_ids, mask = pad([row.input_ids for row in rows], pad_token_id(self.processor.tokenizer))
        labels, _ = pad([row.labels for row in rows], IGNORED)
        types = {
            name: pad(
                [splice_types(item.tokens.input_ids, placeholder, kinds[some]) for (item, _), some in zip(items, own)],
                0,
            )
            for name, kinds in encoded.types.items()
        }
        token_types = {name: padded.values for name, padded in types.items()}
        batch = {"input_ids": input_ids, "attention_mask": mask, "labels": labels, **token_types, **encoded.inputs}
        if not items[0][0].turn_numbers:
            return batch
        # The image's run stands among the shared tokens.
        numbers = [
            [0] * (len(row.labels) - len(sample.turn_numbers)) + sample.turn_numbers
            for row, (sample, _) in zip(rows, items)
        ]
        return batch | separate_turns(pad(numbers, -1).values)


def tokenize(
    conversation: Conversation, formatter: ChatFormatter, end_tokens: Sequence[str]
) -> tuple[LabelledTokens, list[int]]:
    """-> tokens of all turns, and the ends of turns as of label_turns.

    A system turn of the conversation takes the place of the formatter's system prompt.
    """
    messages = [] if conversation.system is None else [message("system", conversation.system)]
    for turn in conversation.turns:
        messages += [formatter.question(turn.question), message("assistant", turn.answer)]
    control_ids = formatter.control_words.ids
    return label_turns(messages, formatter.render, formatter.encode, end_tokens, conversation.is_trained, control_ids)


def question_text(turn: Turn) -> str:
    """Without placeholders."""
    return turn.question.replace(IMAGE, "").strip()


def open_conversations(data: str | Path, cache_dir: str | Path) -> ConversationIndex:
    """data: a file, or an AniPersonaCaps folder. ValueError where nothing in it is a conversation."""
    path = Path(data) / "metadata.jsonl" if Path(data).is_dir() else Path(data)
    check_file(path, "expected a .json, a .jsonl, or a folder with metadata.jsonl")
    index = index_conversations(path, cache_dir)
    if not len(index):
        number, reason = next(iter(index.skipped.items()), (None, "the file is empty"))
        place = "" if number is None else f"{record_key(index, number)}: "
        raise ValueError(f"{path}: no usable conversation; {place}{reason}")
    return index


def record_key(index: ConversationIndex, number: int) -> str:
    """The name of a record in messages: its file and line."""
    return f"{index.path} {index.unit} {number}"


def split_by_image(
    dataset: ConversationDataset, share: float, seed: int
) -> tuple[ConversationDataset, ConversationDataset]:
    """-> training, validation: about `share` of the samples. Samples that share an image are on one side."""
    if not share:
        return dataset, dataset.select(np.arange(0))
    groups = dataset.image_groups()
    order = np.random.default_rng(seed).permutation(groups.max(initial=-1) + 1).tolist()
    is_held_out = np.isin(groups, list(draw_groups(groups, order, round(share * len(groups)))))
    return dataset.select(np.flatnonzero(~is_held_out)), dataset.select(np.flatnonzero(is_held_out))
