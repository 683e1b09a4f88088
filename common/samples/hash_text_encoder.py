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

    Longer texts are truncated to `length` tokens, as by a real tokenizer; the end token is always kept.
    """
    words = re.findall(r"\w+|[^\w\s]", text.lower())[: length - 2]
    tokens = [START, *words, END]
    vectors = torch.stack([_word_vector(token, width) for token in tokens])  # (T, width)
    embed = torch.zeros(length, width)
    embed[: len(tokens)] = vectors + 0.1 * _positions(len(tokens), width)
    mask = torch.zeros(length, dtype=torch.int64)
    mask[: len(tokens)] = 1
    pooled = torch.nn.functional.normalize(vectors.mean(0), dim=0)
    return {"embed": embed, "pooled": pooled, "mask": mask}


def _word_vector(word: str, width: int) -> torch.Tensor:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(width, dtype=np.float32))


def _positions(length: int, width: int) -> torch.Tensor:
    """Sinusoids (Vaswani et al. 2017, section 3.5) -> (length, width); they make the embed depend on word order."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-np.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].float()
