"""Data of a fine-tuning: a file of conversations with images on a disk, or shards that are streamed.

open_data -> make_datasets -> training and validation set; of the former, describe() goes into trained_on.json
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.progress_bar import progress_bar
from common.images.cache import CHECKED
from common.images.io import open_image
from common.images.transforms import SampleKey
from common.streaming.conversations import ShardedConversations, names_shards, order_shards, read_conversation
from common.streaming.order import StreamOrder
from common.streaming.shard_stream import reading_processes
from common.streaming.urls import expand_urls, is_remote
from common.training.conversation_index import ConversationIndex
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped, report_trimmed
from llava.arguments import RunArguments
from llava.config import FineTuning
from llava.dataset import (
    ConversationDataset,
    ConversationTokenizer,
    Item,
    open_conversations,
    record_key,
    split_by_image,
)

TrainingData = ConversationDataset | ShardedConversations
Source = ConversationIndex | tuple[list[str], StreamOrder]


def open_data(tuning: FineTuning, training: RunArguments) -> Source:
    """Of --data."""
    if not 0 <= tuning.val_split < 1:
        raise ValueError(f"--val_split {tuning.val_split}: expected a share from 0 to below 1")
    if not names_shards(tuning.data):
        return open_conversations(tuning.data, tuning.cache_dir)
    if training.train_sampling_strategy == "group_by_length":
        raise ValueError(f"--data {tuning.data}: shards are read in their order, not by group_by_length")
    samples = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    urls, order = order_shards(expand_urls(tuning.data), tuning.cache_dir, samples, training.seed, tuning.stream_buffer)
    workers = reading_processes(training.dataloader_num_workers, training.device, is_remote(urls[0]))
    training.dataloader_num_workers = workers
    return urls, order


def make_datasets(
    source: Source, tuning: FineTuning, training: RunArguments, tokenizer: ConversationTokenizer
) -> tuple[TrainingData, ConversationDataset | None]:
    """-> training, validation, with the same logs. Shards are not divided: all are trained on."""
    is_main = training.process_index == 0
    if isinstance(source, ConversationIndex):
        dataset = read_some(source, tuning, tokenizer, quiet=not is_main)
        train_set, val_set = split_by_image(dataset, tuning.val_split, training.seed)
        if not len(train_set):
            raise ValueError(f"{tuning.data}: no sample is left to train on")
        return train_set, val_set if len(val_set) else None
    if is_main and tuning.val_split:
        print("shards are trained on as a whole, without validation (--val_split)")
    urls, order = source
    decode = StreamDecoder(tokenizer, sum(order.counts))
    return ShardedConversations(urls, order, decode, decode.trimmed, tuning.max_skipped), None


def read_some(
    index: ConversationIndex, tuning: FineTuning, tokenizer: ConversationTokenizer, quiet: bool
) -> ConversationDataset:
    """All conversations but those that turn out to be unusable when CHECKED of them are read, evenly spread."""
    root = Path(tuning.image_dir) if tuning.image_dir else index.path.parent
    dataset = ConversationDataset(index, root, tokenizer, np.arange(len(index)), tuning.cache_dir)
    skipped, trimmed = dataset.skipped, dataset.trimmed
    skipped.skipped = {record_key(index, number): reason for number, reason in index.skipped.items()}
    trimmed.skipped = {record_key(index, number): reason for number, reason in index.trimmed.items()}
    total, skipped.limit = len(index) + len(skipped.skipped), 1
    checked = np.unique(np.linspace(0, len(index) - 1, CHECKED).astype(int)).tolist()  # all, of as many or fewer
    progress = progress_bar(checked, "checking samples", quiet=quiet)
    broken = [number for number in progress if dataset.read(number) is None]
    if not quiet:
        report_skipped(skipped.skipped)
        report_trimmed(trimmed.skipped)
    check_skip_rate(skipped.skipped, total, tuning.max_skipped, tuning.data)
    reasons = {key: skipped.skipped[key] for key in map(dataset.key, broken)}
    check_skip_rate(reasons, len(checked), tuning.max_skipped, tuning.data)
    skipped.limit = tuning.max_skipped  # of those that are found in training
    return dataset.select(np.delete(np.arange(len(index)), broken))


class StreamDecoder:
    """A sample of a shard -> its tokens and opened images. total: samples of all shards."""

    def __init__(self, tokenizer: ConversationTokenizer, total: int):
        self.tokenizer, self.total, self.trimmed = tokenizer, total, SkipLog(limit=1)

    def __call__(self, sample: dict[str, Any], key: SampleKey) -> Item:
        conversation, members = read_conversation(sample)
        images = list(map(open_image, members))
        item = self.tokenizer(conversation, [image.size for image in images])
        name = f"{sample['__url__']}/{sample['__key__']}"
        if item.conversation.trimmed:
            self.trimmed.add(name, item.conversation.trimmed, self.total)
        named = replace(item.conversation, images=tuple(members[: len(item.conversation.images)]), key=name)
        return item._replace(conversation=named), images[: len(named.images)]
