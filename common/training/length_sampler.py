"""Batches of samples of similar length, for Hugging Face's Trainer."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(Sampler):
    """One whose order is a pure function of its epoch, which SetEpochCallback sets."""

    epoch = 0


class LengthGroupedSampler(EpochSampler):
    """transformers' grouping by length within an optimizer step, with the steps in random order.

    Grouping alone orders many steps from long to short: first descriptions, then answers of single words. Only the step
    with the longest sample stays first, so that insufficient memory shows at once. The order is a pure function of
    (seed, epoch), so a resumed run finds its position.
    """

    def __init__(self, lengths: list[int], step_size: int, seed: int):
        self.lengths, self.step_size, self.seed, self.epoch = lengths, step_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        grouped = get_length_grouped_indices(self.lengths, self.step_size, generator=generator)
        first, *others = [grouped[start : start + self.step_size] for start in range(0, len(grouped), self.step_size)]
        short = [others.pop()] if others and len(others[-1]) < self.step_size else []  # stays last
        shuffled = [others[index] for index in torch.randperm(len(others), generator=generator).tolist()]
        return chain(first, *shuffled, *short)
