"""Sampling that does not depend on the batch.

logits (R, V) at temperature and top-p -> plus Gumbel noise of the row's own generator -> the largest is the sample

argmax(log p + g) with independent standard Gumbel g is a draw from p (Gumbel 1954; Maddison et al. 2014, arXiv
1411.0030), so generation stays greedy and each row draws from a stream of its own seed. With
torch.multinomial on the batch, the tokens of a row would change with its neighbours.
"""

import copy
import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class SeededSampling(LogitsProcessor):
    """For `generate(do_sample=False, logits_processor=[...])`: a seed per row, temperature > 0, top_p in (0, 1]."""

    def __init__(self, seeds: list[int], temperature: float, top_p: float):
        self.temperature, self.top_p = temperature, top_p
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def select(self, rows: Sequence[int]) -> "SeededSampling":
        """That of some rows, whose streams it goes on with."""
        selected = copy.copy(self)
        selected.generators = [self.generators[row] for row in rows]
        return selected

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        kept = keep_top(scores.float() / self.temperature, self.top_p)  # (R, V)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
        return kept + noise.to(kept.device)


def keep_top(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Nucleus of Holtzman et al. 2020 (arXiv 1904.09751): the smallest set of tokens with probability top_p or more;
    the others get -inf. The most probable token always stays. logits (R, V) -> (R, V)"""
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability  # of all tokens that come first
    return logits.masked_fill((before >= top_p).gather(-1, order.argsort(-1)), -torch.inf)


def seed_from(*parts: object) -> int:
    """Strings and numbers -> a seed, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "little")
