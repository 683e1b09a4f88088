"""Text encoder without a network: hashed word vectors.

text -> words -> one fixed Gaussian vector per word (seeded by the word's hash)
     -> embed (L, D), pooled (D,), mask (L,)

It encodes identity, not meaning: the same word gives the same vector on every machine, different words give nearly
orthogonal ones (random indexing, Kanerva et al. 2000). That is enough for demos and tests.
"""

import hashlib
import re

import numpy as np
import torch

START, END = "<start>", "<end>"


def hash_text(text: str, width: int = 64, length: int = 16) -> dict[str, torch.Tensor]:
    """Encode one text -> embed (length, width), pooled (width,) of unit norm, mask (length,) with 1 = real token.

    The embed of a longer text is truncated to `length` tokens, as by a real tokenizer; its end token is always kept.
    pooled is the mean of all words, so that each of a long description counts, and nothing that every text holds does.
    """
    tokens = [START, *re.findall(r"\w+|[^\w\s]", text.lower())[: length - 2], END]
    # Sinusoids (Vaswani et al. 2017, section 3.5) make the embed depend on word order.
    angle = torch.arange(len(tokens))[:, None] * torch.exp(torch.arange(0, width, 2) * (-np.log(10000.0) / width))
    positions = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].float()
    embed = torch.zeros(length, width)
    embed[: len(tokens)] = _vectors(tokens, width) + 0.1 * positions  # (T, width)
    words = re.findall(r"\w+", text.lower()) or tokens
    pooled = torch.nn.functional.normalize(_vectors(words, width).mean(0), dim=0)
    return {"embed": embed, "pooled": pooled, "mask": (torch.arange(length) < len(tokens)).long()}


def _vectors(tokens: list[str], width: int) -> torch.Tensor:
    """-> (T, width)"""
    seeds = [int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little") for token in tokens]
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
    return torch.from_numpy(np.stack([random.standard_normal(width, dtype=np.float32) for random in generators]))
