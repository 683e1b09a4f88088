"""Reference similarities of a checkpoint: what style_comparator.py needs to say how sure it is.

validation vectors (N, S), style_ids (N,) -> bank, quantiles over pairs of different styles
"""

from typing import Any

import torch

BANK_SIZE = 1000  # vectors kept


def reference_statistics(style: torch.Tensor, style_ids: list[int], unseen: bool) -> dict[str, Any]:
    """Statistics of validation vectors (N, S), unit length; {} for fewer than two styles.

    unseen: the styles are not those of training, so similarities are what a user of new styles can expect.
    """
    if len(set(style_ids)) < 2:
        return {}
    drawn = torch.randperm(len(style), generator=torch.Generator().manual_seed(0))[:BANK_SIZE]
    bank, labels = style[drawn], torch.tensor(style_ids)[drawn]
    other_style = (labels[:, None] != labels[None]).triu(1)
    quantiles = torch.quantile((bank @ bank.T)[other_style], torch.linspace(0, 1, 1001))
    return {"bank": bank, "other_style_quantiles": quantiles, "unseen_styles": unseen}
