"""Length-grouped sampling: samples of similar length share an optimizer step, to reduce padding.

lengths of N samples, seed, epoch -> order of N indices, for Hugging Face's Trainer
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroupedSampler(Sampler):
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


class SetEpochCallback(TrainerCallback):
    """Passes the epoch on to sampler and dataset; accelerate does not reach those below a batch sampler."""

    def on_epoch_begin(
        self, args: Any, state: TrainerState, control: Any, train_dataloader: Any = None, **_: Any
    ) -> None:
        epoch, sampler = int(state.epoch or 0), train_dataloader.batch_sampler
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(epoch)
        while sampler is not None:
            if isinstance(sampler, LengthGroupedSampler):
                sampler.epoch = epoch
            sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
