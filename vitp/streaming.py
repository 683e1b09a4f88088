"""Instruction data in shards, read as they are streamed.

entries of the meta file with shards in place of an annotation -> ShardedConversations of Sample
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.images.io import open_image
from common.images.tiling import Tiling
from common.images.transforms import SampleKey
from common.streaming.conversations import ShardedConversations, order_shards, read_conversation
from common.streaming.urls import expand_urls
from common.training.skip_log import SkipLog
from vitp.chat_template import ChatTemplate
from vitp.dataset import Sample, make_sample
from vitp.meta_file import Source


def stream_sources(
    sources: Sequence[Source],
    template: ChatTemplate,
    tiling: Tiling,
    max_seq_length: int,
    cache_dir: str | Path,
    batch_size: int,
    seed: int,
    buffer: int,
) -> ShardedConversations:
    """batch_size, buffer: as of order_shards."""
    if files := [source.name for source in sources if not source.shards]:
        raise ValueError(f"'{files[0]}' is a file and others are shards: train on either; json2jsonl.py writes files")
    source_of: dict[str, Source] = {}
    for source in sources:
        for url in expand_urls(source.shards):
            if source_of.setdefault(url, source) is not source:
                raise ValueError(f"{url}: named by '{source_of[url].name}' and by '{source.name}'")
    urls, order = order_shards(list(source_of), cache_dir, batch_size, seed, buffer)
    decode = StreamDecoder(source_of, template, tiling, max_seq_length, seed, sum(order.counts))
    return ShardedConversations(urls, order, decode, decode.trimmed)


class StreamDecoder:
    """A sample of a shard -> Sample."""

    def __init__(
        self,
        source_of: dict[str, Source],
        template: ChatTemplate,
        tiling: Tiling,
        max_seq_length: int,
        seed: int,
        total: int,
    ):
        self.source_of, self.template, self.tiling, self.seed = source_of, template, tiling, seed
        self.max_seq_length, self.total, self.trimmed = max_seq_length, total, SkipLog(limit=1)

    def __call__(self, sample: dict[str, Any], key: SampleKey) -> Sample:
        name, source = f"{sample['__url__']}/{sample['__key__']}", self.source_of[sample["__url__"]]
        conversation, members = read_conversation(sample)
        tiling = replace(self.tiling, max_tiles=source.max_tiles or self.tiling.max_tiles)
        random = np.random.default_rng((self.seed, key.epoch, key.index)) if source.data_augment else None
        images = list(map(open_image, members))
        made, cut = make_sample(conversation, images, self.template, tiling, self.max_seq_length, random)
        if trimmed := "; ".join(filter(None, (conversation.trimmed, cut))):
            self.trimmed.add(name, trimmed, self.total)
        return {**made, "key": name}
