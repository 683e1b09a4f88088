"""The parts of the trainer by themselves."""

import json

import pytest
import torch

from common.state import last_checkpoint
from vitp.trainer import LengthGroupedSampler


def test_batches_of_like_length():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 1000, (400,), generator=generator).tolist()
    sampler = LengthGroupedSampler(lengths, together=8, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(400)) and len(sampler) == 400
    assert order == list(sampler)  # a pure function of seed and epoch
    sampler.epoch = 1
    assert order != list(sampler) and order != list(LengthGroupedSampler(lengths, 8, seed=4))

    def padding(indices):
        batches = [[lengths[index] for index in indices[start : start + 8]] for start in range(0, 400, 8)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(lengths)

    assert padding(order) < 0.1 < 0.3 < padding(torch.randperm(400, generator=generator).tolist())
    means = torch.tensor(
        [sum(lengths[index] for index in order[start : start + 8]) for start in range(0, 400, 8)]
    ).float()
    drift = torch.corrcoef(torch.stack([means, torch.arange(50).float()]))[0, 1]
    assert abs(float(drift)) < 0.5  # the batches themselves come in random order


@pytest.mark.parametrize(
    "state, whole", [('{"global_step": 8}', True), ('{"global_st', False), (None, False), ("{}", False)]
)
def test_newest_whole_checkpoint(tmp_path, state, whole):
    assert last_checkpoint(tmp_path) is None and last_checkpoint(tmp_path / "gone") is None
    for number in (2, 10):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(json.dumps({"global_step": number}))
    (tmp_path / "checkpoint-best").mkdir()
    newest = tmp_path / "checkpoint-11"
    newest.mkdir()
    if state is not None:
        (newest / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == (newest if whole else tmp_path / "checkpoint-10")
