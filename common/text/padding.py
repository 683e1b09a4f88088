"""Rows of different lengths as one tensor with its mask."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from multimodal_utils import create_attention_mask_from_embed


class Padded(NamedTuple):
    values: torch.Tensor  # (B, T) int64, T = the longest row
    mask: torch.Tensor  # (B, T) int64, 1 = real


def pad(rows: Sequence[Sequence[int] | torch.Tensor], value: int, side: str = "right") -> Padded:
    """side: 'right' for training; 'left' for generation, where the first new token has to follow the prompt's last."""
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]
    values = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)
    # From lengths, not from values: a token that doubles as padding stays real where the text holds it.
    mask = create_attention_mask_from_embed(values[..., None], [len(row) for row in tensors])
    return Padded(values, mask.flip(1) if side == "left" else mask)
