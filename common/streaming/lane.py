"""Reader of one lane of the order: its shards one after the other, and of their samples a shuffled block at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from common.streaming.order import Piece, StreamOrder
from common.streaming.shard_reader import ShardError, read_samples
from common.training.skip_log import SkipLog

Sample = dict[str, Any]  # {"__key__": name in its shard, suffix: bytes}


class BrokenShards:
    """Shards that end before their number of samples, or that cannot be read at all: named once, and counted."""

    def __init__(self, urls: Sequence[str], counts: Sequence[int], log: SkipLog):
        """log: raises where too many shards are broken."""
        self.urls, self.counts, self.log = urls, counts, log
        self.readable: dict[tuple[int, int], int] = {}  # pass, shard -> samples before the break

    def add(self, turn: int, shard: int, readable: int, error: Exception) -> None:
        self.readable[turn, shard] = readable
        count = self.counts[shard]
        reason = f"{error}; {readable} of its {count} samples are used, {count - readable} skipped"
        self.log.add(self.urls[shard], reason, len(self.urls))


class Lane:
    """One lane in one pass. For each sample that a block gives out, one of the next block is read."""

    def __init__(self, urls: Sequence[str], order: StreamOrder, turn: int, lane: int, broken: BrokenShards):
        self.urls, self.order, self.turn, self.lane, self.broken = urls, order, turn, lane, broken
        self.pieces, self.shards = order.pieces(turn, lane), order.shards(turn)
        self.number = -1  # of the block that is given out
        self.block: list[tuple[str, Sample]] = []
        self.ahead: list[tuple[str, Sample]] = []  # what has been read of the next block
        self.reader: Iterator[tuple[str, Sample]] = iter(())

    def candidates(self, position: int) -> Iterator[tuple[str, Sample]]:
        """(name, sample) at a position of the lane, then those that may take its place: first the next of its block."""
        number, place = divmod(position, self.order.block)
        if number != self.number:
            if number != self.number + 1 or number == 0:  # the start, or a jump
                self.reader, self.ahead = self._read(number * self.order.block), []
            self._read_ahead(self.order.block)
            self.number, self.block, self.ahead = number, self.ahead, []
            self.places = self.order.permutation(self.turn, self.lane, number, len(self.block))
        self._read_ahead(place + 1)
        for index in range(len(self.block)):
            yield self.block[self.places[(place + index) % len(self.block)]]
        for shard in np.roll(self.shards, -self.pieces[0].turn).tolist():
            yield from self._read_shard(shard, 0, self.order.counts[shard])

    def _read_ahead(self, count: int) -> None:
        while len(self.ahead) < count and (sample := next(self.reader, None)):
            self.ahead.append(sample)

    def _read(self, position: int) -> Iterator[tuple[str, Sample]]:
        """(name, sample) of the lane from a position on, in the order of the shards."""
        for piece in self.pieces:
            length = piece.stop - piece.start
            if position < length:
                yield from self._read_piece(piece, piece.start + position)
            position = max(0, position - length)

    def _read_piece(self, piece: Piece, index: int) -> Iterator[tuple[str, Sample]]:
        """Samples `index` to `stop` of a shard. Where it is broken, the next shard of the pass takes its place."""
        for turn in range(piece.turn, piece.turn + len(self.shards)):
            for name, sample in self._read_shard(int(self.shards[turn % len(self.shards)]), index, piece.stop):
                yield name, sample
                index += 1
            if index == piece.stop:
                return
        raise ShardError(f"{self.urls[self.shards[piece.turn]]}: neither it nor any other shard can be read")

    def _read_shard(self, shard: int, index: int, stop: int) -> Iterator[tuple[str, Sample]]:
        """Samples `index` to `stop` of a shard, as far as it can be read; of one with fewer, from its start again."""
        url, count = self.urls[shard], self.order.counts[shard]
        while index < stop and count:
            start, number = index % count, 0
            if start >= self.broken.readable.get((self.turn, shard), count):
                return
            try:
                for number, sample in enumerate(read_samples(url), 1):
                    if number > start:
                        yield f"{url}/{sample['__key__']}", sample
                        index += 1
                    if index == stop or number == count:
                        break
                else:
                    raise ShardError(f"{url}: its end is missing, or its number of samples is wrong")
            except ShardError as error:
                self.broken.add(self.turn, shard, number, error)
                return
