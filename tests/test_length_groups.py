"""Batches of like length, and the order of them."""

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from common.training.length_sampler import LengthGroupedSampler


def test_batches_of_like_length():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 1000, (400,), generator=generator).tolist()
    sampler = LengthGroupedSampler(lengths, step_size=8, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(400)) and len(sampler) == 400
    assert order == list(sampler)  # a pure function of seed and epoch
    sampler.epoch = 1
    assert order != list(sampler) and order != list(LengthGroupedSampler(lengths, 8, seed=4))

    def padding(indices):
        batches = [[lengths[index] for index in indices[start : start + 8]] for start in range(0, 400, 8)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(lengths)

    assert padding(order) < 0.1 < 0.3 < padding(torch.randperm(400, generator=generator).tolist())
    means = torch.tensor(order).reshape(50, 8).apply_(lengths.__getitem__).float().mean(1)
    after = torch.corrcoef(torch.stack([means[1:-1], means[2:]]))[0, 1]
    assert abs(float(after)) < 0.3  # steps do not go from long to short: in transformers' own order this is 0.5
    assert max(lengths) in [lengths[index] for index in order[:8]]


def test_steps_are_those_of_transformers():
    lengths = list(range(1, 22))
    steps = [
        [order[start : start + 4] for start in range(0, 21, 4)]
        for order in (
            list(LengthGroupedSampler(lengths, step_size=4, seed=0)),
            get_length_grouped_indices(lengths, 4, generator=torch.Generator().manual_seed(0)),
        )
    ]
    assert sorted(steps[0]) == sorted(steps[1]) and steps[0] != steps[1]
    assert steps[0][0] == steps[1][0] and steps[0][-1] == steps[1][-1]  # the longest first, the short one last
