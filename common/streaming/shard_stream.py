"""Streamed samples for training: batches that are the same on any number of devices and loader processes.

ShardStream (batch sampler) -> numbers of samples -> ShardSamples (data set, in each loader process) -> decode(sample)

The numbers count all samples that the run trains on, so they say where each comes from (order.py). A run resumes at any
batch by them alone: the lanes of that batch begin with the block in which it lies, which costs reading the one shard in
which the block begins from its start, and at most two blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from common.images.transforms import SampleKey
from common.streaming.lane import BrokenShards, Lane, Sample
from common.streaming.order import ROWS, StreamOrder
from common.training.loader import choose_num_workers
from common.training.skip_log import SkipLog


class ShardStream:
    """Batch sampler of SampleKey(epoch, number of the sample), in the place of a DeterministicBatchSampler.

    epoch_samples: after which an epoch ends, whatever part of the shards it has seen; 0: a pass over all shards.
    """

    def __init__(self, order: StreamOrder, epoch_samples: int = 0, rank: int = 0, world: int = 1):
        if order.batch_size % world:
            raise ValueError(f"a batch of {order.batch_size} samples cannot be shared equally by {world} device(s)")
        if 0 < epoch_samples < order.batch_size:
            raise ValueError(f"epoch_samples {epoch_samples}: fewer than one batch of {order.batch_size}")
        self.order, self.rank, self.world, self.batch_size = order, rank, world, order.batch_size
        self.batches = epoch_samples // order.batch_size or order.batches
        self.epoch = self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        share = self.batch_size // self.world
        for batch in range(self.start, self.batches):
            first = (self.epoch * self.batches + batch) * self.batch_size + self.rank * share
            yield [SampleKey(self.epoch, number) for number in range(first, first + share)]

    def __len__(self) -> int:
        return self.batches - self.start


def reading_processes(num_workers: int, device: torch.device, is_remote: bool) -> int:
    """Loader processes that share the rows of the order without reading twice: at most num_workers; -1: as elsewhere,
    but one for remote shards on a CPU, so that waiting for a server does not hold up the model."""
    if num_workers < 0:
        num_workers = max(choose_num_workers(device), int(is_remote))
    return max(count for count in range(ROWS + 1) if count <= num_workers and (not count or ROWS % count == 0))


class ShardSamples(Dataset):
    """dataset[key] -> decode(sample, key), by the keys of a ShardStream in the order in which it yields them.

    Any other order gives the same items and reads more. decode raises ValueError or OSError for a sample that cannot be
    used; the next one of its block takes its place. skip_log: of samples. broken_shards: of shards.
    """

    def __init__(
        self,
        urls: Sequence[str],
        order: StreamOrder,
        decode: Callable[[Sample, SampleKey], Any],
        skip_log: SkipLog,
        broken_shards: SkipLog,
    ):
        self.urls, self.order, self.decode, self.skip_log = urls, order, decode, skip_log
        self.broken = BrokenShards(urls, order.counts, broken_shards)
        self.lanes: dict[int, Lane] = {}

    def __len__(self) -> int:
        """Samples of a pass over all shards."""
        return self.order.batches * self.order.batch_size

    def __getitem__(self, key: SampleKey) -> Any:
        turn, number, position = self.order.locate(key.index)
        lane = self.lanes.get(number)
        if lane is None or lane.turn != turn:
            lane = self.lanes[number] = Lane(self.urls, self.order, turn, number, self.broken)
        for name, sample in lane.candidates(position):
            try:
                return self.decode(sample, key)
            except (ValueError, OSError) as error:
                self.skip_log.add(name, error, sum(self.order.counts))
        raise ValueError(f"{name}: neither it nor any other sample can be used")

    def file_of(self, number: int) -> str:
        """Shard and number in it of a sample; of one whose place another takes, of the one that should be there."""
        shard, index = self.order.origin(number)
        return f"{self.urls[shard]}, sample {index}"
