"""Token mask augmentation of ViTP: image tokens hidden from the language model in training.

features (M, D) of a batch, sample_ids (M,) -> features (M, D), kept (M,) bool

Three versions of it are in use. `probability` is that of a sample being masked at all, `ratio` the share
of its tokens that is hidden:

    guide  0.75, 0.30, zeroed    the sequence keeps its length
    paper  1.00, 0.75, dropped   the sequence gets shorter, the other tokens keep their positions
    repo   0.25, 0.75, dropped   the paper's code masks 1 - p of the samples and drops the share p, for p = 0.75
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from multimodal_utils import mask_tokens


@dataclass
class TokenMasking:
    """Draws from a generator of its own, which a run can save and which changes no other random numbers."""

    probability: float
    ratio: float
    hide: Literal["zero", "drop"]  # as multimodal_utils.mask_tokens names them
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __call__(self, features: torch.Tensor, sample_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """features (M, D), sample_ids (M,) equal for neighbours of one sample -> features (M, D), kept (M,) bool.

        A sample's tokens are drawn from all of its tiles and images together. Hidden tokens of 'zero' are zeros and
        kept; those of 'drop' are unchanged, for the caller to drop.
        """
        samples = [
            mask_tokens(tokens[None], self.ratio, self.hide, self.generator, self.probability)
            for tokens in features.split(sample_ids.unique_consecutive(return_counts=True)[1].tolist())
        ]
        if self.hide == "drop":
            return features, torch.cat([sample.kept[0] for sample in samples]).bool()
        return torch.cat([sample.tokens[0] for sample in samples]), torch.ones_like(sample_ids, dtype=torch.bool)


MODES = {
    "guide": TokenMasking(0.75, 0.3, "zero"),
    "paper": TokenMasking(1.0, 0.75, "drop"),
    "repo": TokenMasking(0.25, 0.75, "drop"),
}


def build_masking(mode: str, probability: float | None, ratio: float | None, seed: int) -> TokenMasking | None:
    """A mode with its own numbers or those given; None where no token would ever be hidden."""
    numbers = {"probability": probability, "ratio": ratio}
    given = {name: number for name, number in numbers.items() if number is not None}
    masking = replace(MODES[mode], **given, generator=torch.Generator().manual_seed(seed))
    if not 0 <= masking.probability <= 1 or not 0 <= masking.ratio < 1:
        raise ValueError(
            f"--TMAug_prob {masking.probability} must lie in [0, 1], --TMAug_ratio {masking.ratio} in [0, 1)"
        )
    return masking if masking.probability and masking.ratio else None
