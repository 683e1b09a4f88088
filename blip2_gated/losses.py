"""What is asked of the gated model beside the right answer?

logits (B, T, V), labels (B, T), style logits (B, C) -> main, style_hit, consistency, style_head

    main         cross-entropy over the tokens of answer and newline
    style_hit    1 - P(a style is named): 1 - prod over answer positions of (1 - mass on style tokens)
    consistency  (KL(p, q) + KL(q, p)) / 2 of the styles in the image, p, and in the text, q
    style_head   cross-entropy of p with the true style: without it both could agree on uniform

All are sums over what they apply to, divided by counts over all devices.
"""

import torch
import torch.nn.functional as F

from common.training.distributed import global_mean


def answer_rows(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The positions that are learnt -> their log-probabilities (A, V), targets (A,), samples (A,).

    Only those rows pass through softmax: of a vocabulary of 50,000 that is most of the memory saved.
    """
    wanted = labels[:, 1:] != -100
    targets = labels[:, 1:][wanted]
    samples = wanted.nonzero()[:, 0]
    return logits[:, :-1][wanted].float().log_softmax(-1), targets, samples


def main_loss(log_probs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log_probs (A, V), targets (A,) -> sum of the cross-entropies, their number."""
    return -log_probs.gather(1, targets[:, None]).sum(), torch.tensor(len(targets), device=targets.device)


def style_masses(
    log_probs: torch.Tensor,
    samples: torch.Tensor,
    token_ids: torch.Tensor,
    token_classes: torch.Tensor,
    batch: int,
    classes: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log_probs (A, V) of answer positions, samples (A,) -> P(a style is named) (B,), mass of each class (B, C).

    The first takes positions as independent; the second sums over them.
    """
    probs = log_probs[:, token_ids].exp()  # (A, U)
    by_class = probs.new_zeros(len(probs), classes).index_add(1, token_classes, probs)  # (A, C)
    missed = torch.log1p(-by_class.sum(1).clamp(max=1 - 1e-6))  # (A,) log of naming none here
    missed = missed.new_zeros(batch).index_add(0, samples, missed)
    return -torch.expm1(missed), by_class.new_zeros(batch, classes).index_add(0, samples, by_class)


def style_hit_loss(named: torch.Tensor, applies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """named (B,) probabilities, applies (B,) -> sum of 1 - named where it applies, and how often that is."""
    return ((1 - named) * applies).sum(), applies.sum()


def consistency_loss(
    style_logits: torch.Tensor, masses: torch.Tensor, known: torch.Tensor, applies: torch.Tensor, teach: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric KL (Jeffreys) between the image's styles and the text's, over the same classes.

    style_logits, masses (B, C); known (C,): classes with a token of their own. teach: the image's side is a teacher
    and gets no gradient.
    """
    image = style_logits.float().masked_fill(~known, -torch.inf)
    if teach:
        image = image.detach()
    image = image.log_softmax(-1)[:, known]
    text = masses[:, known].clamp(min=1e-8).log().log_softmax(-1)
    both = F.kl_div(text, image, reduction="none", log_target=True)
    both = both + F.kl_div(image, text, reduction="none", log_target=True)
    return (both.sum(-1) / 2 * applies).sum(), applies.sum()


def style_head_loss(style_logits: torch.Tensor, style_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """style_logits (B, C), style_ids (B,), -1 = not known -> sum of cross-entropies, how many are known."""
    known = style_ids >= 0
    each = F.cross_entropy(style_logits.float(), style_ids.clamp(min=0), reduction="none")
    return (each * known).sum(), known.sum()


def mean(part: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(sum, count) of this device -> the mean over all devices, 0 where nothing applies."""
    return global_mean(*part)
