"""Which image tokens does the language model not see in training (ViTP's token mask augmentation)?

features (M, D) of a batch, sample (M,) whose each is -> features (M, D), kept (M,) bool

Three readings of it are in circulation, and each has a name here; `probability` is always the chance that a sample is
masked at all, `ratio` the share of its tokens that goes:

    guide  0.75, 0.30, zeroed    the sequence keeps its length
    paper  1.00, 0.75, dropped   the sequence gets shorter, the others keep their positions
    repo   0.25, 0.75, dropped   the paper's code fires in 1 - p of the cases and drops the share p, for p = 0.75
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from multimodal_utils import mask_tokens


class MaskingMode(NamedTuple):
    probability: float
    ratio: float
    hide: str  # 'zero' or 'drop', as multimodal_utils.mask_tokens names them


MODES = {
    "guide": MaskingMode(0.75, 0.3, "zero"),
    "paper": MaskingMode(1.0, 0.75, "drop"),
    "repo": MaskingMode(0.25, 0.75, "drop"),
}


@dataclass
class TokenMasking:
    """Draws from a generator of its own, so that nothing else changes its stream and a run can save it."""

    probability: float
    ratio: float
    hide: str
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __call__(self, features: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """features (M, D), sample (M,) equal for neighbours of one sample -> features (M, D), kept (M,) bool.

        A sample's tokens are drawn from all of its tiles and images together. Hidden tokens of 'zero' are zeros and
        kept; those of 'drop' come back as they were, for the caller to leave out.
        """
        sizes = sample.unique_consecutive(return_counts=True)[1].tolist()
        shown, kept = [], []
        for tokens in features.split(sizes):
            masked = mask_tokens(tokens[None], self.ratio, self.hide, self.generator, self.probability)
            shown.append(masked.tokens[0] if self.hide == "zero" else tokens)
            kept.append(masked.kept[0].bool() if self.hide == "drop" else masked.kept.new_ones(len(tokens)).bool())
        return torch.cat(shown), torch.cat(kept)


def build_masking(mode: str, probability: float | None, ratio: float | None, seed: int) -> TokenMasking | None:
    """A mode's numbers, or others where they are given; None where nothing would ever be hidden."""
    if mode not in MODES:
        raise ValueError(f"--TMAug_mode '{mode}': expected one of {', '.join(MODES)}")
    chosen = MODES[mode]
    probability = chosen.probability if probability is None else probability
    ratio = chosen.ratio if ratio is None else ratio
    if not 0 <= probability <= 1:
        raise ValueError(f"--TMAug_prob {probability}: expected a chance from 0 to 1")
    if not 0 <= ratio < 1:
        raise ValueError(f"--TMAug_ratio {ratio}: expected a share from 0 to below 1")
    if probability == 0 or ratio == 0:
        return None
    return TokenMasking(probability, ratio, chosen.hide, torch.Generator().manual_seed(seed))
