"""Packs, and the two descriptions of who may see whom."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitp.model import packed_attention_mask, sequence_bounds
from vitp.packing import pack


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(0, 3))
def test_every_sample_in_one_pack_and_few_packs(lengths, seed):
    packs = pack(dict(enumerate(lengths)), 50, seed)
    assert sorted(index for one in packs for index in one) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in one) <= 50 for one in packs)
    fewest = -(-sum(lengths) // 50)
    assert len(packs) <= fewest * 11 / 9 + 2 + sum(length > 25 for length in lengths)
    assert packs == pack(dict(enumerate(lengths)), 50, seed)


def test_packs_are_full():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 400, (5000,), generator=generator).tolist()
    packs = pack(dict(enumerate(lengths)), 1024, 0)
    assert sum(lengths) / (1024 * len(packs)) > 0.99


def test_what_is_too_long_is_refused():
    with pytest.raises(ValueError, match="51 tokens does not fit into a sequence of 50"):
        pack({0: 3, 1: 51}, 50, 0)


def test_attention_against_a_loop():
    sample_ids = torch.tensor([[0, 0, 1, 1, 1, -1], [0, 1, 2, 2, 2, 2]])
    mask = packed_attention_mask(sample_ids)
    for row in range(2):
        for query in range(6):
            for key in range(6):
                expected = key <= query and sample_ids[row, query] == sample_ids[row, key]
                assert bool(mask[row, 0, query, key]) == bool(expected)
    assert mask.any(-1).all()  # a row that sees nothing would be NaN


def test_bounds_of_sequences():
    bounds = sequence_bounds(torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0], [0, 1, 1, -1]]))
    assert bounds["cu_seq_lens_q"].tolist() == [0, 2, 3, 4, 8, 9, 11, 12] and bounds["max_length_k"] == 4
    assert bounds["cu_seq_lens_k"].dtype == torch.int32 and bounds["attention_mask"] is None
