"""Batch sampler whose batches are a pure function of (seed, epoch), so that training can resume from any of them."""

from collections.abc import Iterator

import numpy as np

from common.images.transforms import SampleKey


class DeterministicBatchSampler:
    """Every sample once an epoch in a new order, full batches only, each shared by `world` devices.

    A batch is the same set of samples on any number of devices. Samples that do not fill a last batch are dropped until
    the next epoch, whose order differs.
    """

    def __init__(self, count: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1):
        if batch_size < 1 or batch_size % world:
            raise ValueError(f"a batch of {batch_size} samples cannot be shared equally by {world} device(s)")
        if count < batch_size:
            raise ValueError(
                f"{count} samples to train on are fewer than one batch of {batch_size}; use more data or a smaller "
                "--batch_size"
            )
        self.count, self.batch_size, self.seed, self.rank, self.world = count, batch_size, seed, rank, world
        self.epoch = self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for number in range(self.start, self.count // self.batch_size):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            # Contiguous shares: slice k of a gathered batch is that of device k.
            share = self.batch_size // self.world
            yield [SampleKey(self.epoch, int(index)) for index in batch[self.rank * share : (self.rank + 1) * share]]

    def __len__(self) -> int:
        return self.count // self.batch_size - self.start
