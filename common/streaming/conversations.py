"""Conversations of streamed shards, for Hugging Face's Trainer.

000123.json {"conversations": [...]}, 000123.jpg    -> Conversation, its image
000123.json, 000123.0.png, 000123.1.png, ...        -> with several, in the order of their numbers
000123.txt, 000123.jpg                              -> the text as the answer to CAPTION_QUESTION

ShardedConversations, a data set with a sampler -> accelerate shares the batches among the devices

The sampler yields the numbers of a StreamOrder one after the other, a step's before the next one's, so that a step
holds the same samples on any number of devices, and Trainer resumes by passing over numbers.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.images.folders import IMAGE_SUFFIXES
from common.images.transforms import SampleKey
from common.images.webdataset import TarMember
from common.streaming.counts import count_samples
from common.streaming.members import members_of
from common.streaming.order import StreamOrder
from common.streaming.shard_stream import ShardSamples
from common.streaming.urls import SUFFIXES, is_streamed, shard_name
from common.text.conversations import IMAGE, Conversation, Turn, parse_conversation
from common.text.files import decode_text, parse_json
from common.text.tables import check_record
from common.text.values import text_of
from common.training.conversation_index import lock
from common.training.length_sampler import EpochSampler
from common.training.skip_log import SkipLog, check_skip_rate, report_skipped
from common.training.trained_on import digest_of

CAPTION_QUESTION = "Describe this image."
MAX_BROKEN = 0.05  # share of shards
INDEX = "shard_samples.json"  # in the cache: numbers of samples


def names_shards(spec: str) -> bool:
    """Whether data are shards, by URL, pattern or name, and not a file of conversations."""
    return is_streamed(spec) or spec.lower().endswith(SUFFIXES)


class ShardSampler(EpochSampler):
    """The samples of an epoch in the order of their batches."""

    def __init__(self, order: StreamOrder):
        self.order, self.epoch = order, 0

    def __len__(self) -> int:
        return self.order.batches * self.order.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        first = self.epoch * len(self)
        return (SampleKey(self.epoch, number) for number in range(first, first + len(self)))


class ShardedConversations(ShardSamples):
    """The items that `decode` makes of the samples. trimmed: its log of samples that are used in part."""

    def __init__(
        self, urls: Sequence[str], order: StreamOrder, decode: Callable, trimmed: SkipLog, limit: float = 0.05
    ):
        """limit: share of the samples, and of the shards, that may be broken."""
        self.logs = {"skipped": SkipLog(limit=limit), "trimmed": trimmed, "skipped_shards": SkipLog(limit=limit)}
        super().__init__(urls, order, decode, self.logs["skipped"], self.logs["skipped_shards"])

    def sampler(self) -> ShardSampler:
        """Of FaultTolerantTrainer."""
        return ShardSampler(self.order)

    def describe(self) -> str:
        """Number of samples, and a digest of names and sizes of the shards."""
        shards = list(zip(map(shard_name, self.urls), self.order.counts))
        return f"{sum(self.order.counts)} in {len(shards)} shards, digest {digest_of((shards, self.order.buffer))}"


def order_shards(
    urls: Sequence[str], cache_dir: str | Path, batch_size: int, seed: int, buffer: int
) -> tuple[list[str], StreamOrder]:
    """-> readable shards, the order of their samples; names the others on stderr.

    batch_size: samples of an optimizer step on all devices. buffer: samples in memory of all devices.
    """
    index = Path(cache_dir, INDEX)
    with lock(index):  # the other processes read what the first has counted
        counts, skipped = count_samples(urls, index)
    report_skipped(skipped, listed="")
    check_skip_rate(skipped, len(urls), MAX_BROKEN, urls[0])
    kept = {url: count for url, count in zip(urls, counts) if url not in skipped}
    return list(kept), StreamOrder(tuple(kept.values()), batch_size, seed, buffer=buffer)


def read_conversation(sample: dict[str, Any]) -> tuple[Conversation, list[TarMember]]:
    """A sample of a shard -> its conversation, the images in reading order. ValueError says what is wrong with it."""
    members = members_of(sample)
    suffixes = sorted((name for name in members if f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES), key=_natural)
    record = parse_json(sample["json"]) if "json" in sample else {}
    check_record(record)
    if all(record.get(name) is None for name in ("conversations", "messages")) and "txt" in sample:
        text = text_of(decode_text(sample["txt"])).strip()
        if not text or not suffixes:
            raise ValueError("a caption without " + ("an image" if text else "words"))
        question = f"{IMAGE}\n" * len(suffixes) + CAPTION_QUESTION
        conversation = Conversation((Turn(question, text),), tuple(suffixes))
    else:
        conversation = parse_conversation(record)
        if suffixes and not conversation.images:  # the record leaves it to the names of the members
            conversation = parse_conversation({**record, "images": suffixes})
    if len(suffixes) < len(conversation.images):
        raise ValueError(f"{len(suffixes)} images in the shard for {len(conversation.images)} in the record")
    return conversation, [members[name] for name in suffixes[: len(conversation.images)]]


def _natural(name: str) -> list[Any]:
    """10.jpg comes after 9.jpg."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name)]
