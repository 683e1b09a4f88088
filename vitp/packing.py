"""How do several samples share one sequence without seeing each other?

lengths -> packs of sample numbers, each at most max_length tokens
sample_ids (B, T), equal in each sample, -1 at padding -> who may attend to whom
"""

from bisect import bisect_left, insort

import numpy as np
import torch


def pack(lengths: list[int], max_length: int, seed: int) -> list[list[int]]:
    """Sample numbers in packs of at most max_length tokens; each sample is in one pack.

    Longest first, each into the open pack that it fills most (best-fit decreasing; at most 11/9 of the fewest packs).
    Among equal lengths, and in every pack, the order is drawn from `seed`.
    """
    if lengths and max(lengths) > max_length:
        raise ValueError(f"a sample of {max(lengths)} tokens does not fit into a sequence of {max_length}")
    random = np.random.default_rng(seed)
    packs: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # tokens that are free -> packs that have so many
    spaces: list[int] = []  # the keys of by_space, rising
    for sample in sorted(random.permutation(len(lengths)).tolist(), key=lambda one: -lengths[one]):
        place = bisect_left(spaces, lengths[sample])
        if place == len(spaces):
            chosen, space = len(packs), max_length
            packs.append([])
        else:
            space = spaces[place]
            chosen = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[place]
        packs[chosen].append(sample)
        left = space - lengths[sample]
        if left not in by_space:
            by_space[left] = []
            insort(spaces, left)
        by_space[left].append(chosen)
    return [random.permutation(one).tolist() for one in packs]


def packed_attention_mask(sample_ids: torch.Tensor) -> torch.Tensor:
    """sample_ids (B, T) -> (B, 1, T, T) bool: a token sees itself and what stands before it in its own sample."""
    same = sample_ids[:, :, None] == sample_ids[:, None, :]
    return same.tril()[:, None]


def sequence_bounds(sample_ids: torch.Tensor) -> dict:
    """sample_ids (B, T) -> flash attention's description of the same: where each sample begins in the flattened batch.

    Padding counts as a sample of its own, so that the bounds cover every row.
    """
    batch, length = sample_ids.shape
    whole = (sample_ids + 1 + torch.arange(batch, device=sample_ids.device)[:, None] * (length + 1)).flatten()
    sizes = whole.unique_consecutive(return_counts=True)[1]
    bounds = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(sizes.max())
    return {
        "attention_mask": None,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
