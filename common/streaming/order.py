"""Order of streamed samples: a pure function of (seed, pass, number of samples of each shard, batch size).

shards of a pass, in a new order -> one sequence of samples -> cut into lanes -> blocks of a lane, each shuffled
number of a sample, counted over all batches of the run -> (pass, lane, position in it) -> (shard, sample in it)

Lanes form a grid of ROWS x columns. Batch g takes its samples from row g % ROWS, an equal share from each column in
order. So a loader process that makes every second batch, and a device that takes half of each, read only the lanes of
their own, and the batches are the same on any number of both. A lane is read from its first shard border on; what it
holds of the shard before comes last, so that no lane begins within a shard.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

ROWS = 4  # so many loader processes per device, or half or a quarter, share the reading without reading twice


@dataclass(frozen=True)
class Piece:
    """Samples `start` to `stop` of the shard that comes as number `turn` in its pass."""

    turn: int
    start: int
    stop: int


@dataclass(frozen=True)
class StreamOrder:
    """counts: samples of each shard. lanes: columns, as far as they divide the batch size. buffer: samples of all lanes
    that are held in memory, undecoded, at most: half of them a block that is given out, half the next one."""

    counts: tuple[int, ...]
    batch_size: int
    seed: int = 0
    lanes: int = 8
    buffer: int = 16_384

    def __post_init__(self) -> None:
        if self.batches < 1:
            raise ValueError(
                f"{sum(self.counts)} samples to train on are fewer than one batch of {self.batch_size}; use more data "
                "or a smaller --batch_size"
            )

    @cached_property
    def batches(self) -> int:
        """Full batches of a pass over all shards. What remains is dropped until the next pass, whose order differs."""
        return sum(self.counts) // self.batch_size

    @property
    def columns(self) -> int:
        return gcd(self.lanes, self.batch_size)

    @property
    def lane_count(self) -> int:
        return ROWS * self.columns

    @property
    def share(self) -> int:
        """Samples of a batch that come from one lane."""
        return self.batch_size // self.columns

    @property
    def block(self) -> int:
        """Samples of a lane that are shuffled at a time."""
        return max(1, self.buffer // (2 * self.lane_count))

    def locate(self, number: int) -> tuple[int, int, int]:
        """-> pass, lane and position in the lane of the sample with this number."""
        batch, place = divmod(number, self.batch_size)
        turn, batch = divmod(batch, self.batches)
        column, place = divmod(place, self.share)
        return turn, batch % ROWS * self.columns + column, batch // ROWS * self.share + place

    def shards(self, turn: int) -> np.ndarray:
        """Indices of the shards in the order of a pass."""
        return np.random.default_rng([self.seed, turn]).permutation(len(self.counts))

    def pieces(self, turn: int, lane: int) -> list[Piece]:
        """What a lane reads in a pass, in order."""
        lengths = [-(-(self.batches - row) // ROWS) * self.share for row in range(ROWS) for _ in range(self.columns)]
        start, length = sum(lengths[:lane]), lengths[lane]
        ends = np.cumsum(np.asarray(self.counts)[self.shards(turn)])
        pieces = []
        for index in range(int(np.searchsorted(ends, start, "right")), len(ends)):
            first = int(ends[index - 1]) if index else 0
            if first >= start + length:
                break
            piece = Piece(index, max(start, first) - first, min(start + length, int(ends[index])) - first)
            pieces += [piece] if piece.stop > piece.start else []
        return pieces[1:] + pieces[:1] if len(pieces) > 1 and pieces[0].start else pieces

    def permutation(self, turn: int, lane: int, block: int, length: int) -> np.ndarray:
        """The order within a block of a lane."""
        return np.random.default_rng([self.seed, turn, lane, block]).permutation(length)

    def origin(self, number: int) -> tuple[int, int]:
        """-> index of the shard, and in it, of the sample with this number."""
        turn, lane, position = self.locate(number)
        pieces, block = self.pieces(turn, lane), position // self.block
        start = block * self.block
        length = min(self.block, sum(piece.stop - piece.start for piece in pieces) - start)
        position = start + int(self.permutation(turn, lane, block, length)[position - start])
        for piece in pieces:
            if position < piece.stop - piece.start:
                return int(self.shards(turn)[piece.turn]), piece.start + position
            position -= piece.stop - piece.start
        raise AssertionError("locate() and pieces() agree")
