"""Losses: language modelling on the answer, and style regularisers.

logits (B, T, V), labels (B, T), style logits (B, C) -> main, style_hit, consistency, style_head

    main         cross-entropy over the tokens of answer and newline
    style_hit    1 - P(a style is named): prod over answer positions of (1 - mass on style tokens)
    consistency  (KL(p, q) + KL(q, p)) / 2 of the style distributions of the image, p, and of the text, q
    style_head   cross-entropy of p with the true style: without it both could agree on uniform

Each is a (sum, count) over the tokens or samples that it applies to; global_mean divides by the counts of all devices.
"""

import torch
import torch.nn.functional as F

from common.text.chat_labels import IGNORED

SumAndCount = tuple[torch.Tensor, torch.Tensor]


def answer_rows(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The labelled positions -> their log-probabilities (A, V), targets (A,), samples (A,).

    Only those rows pass through softmax, which saves most of the memory with a vocabulary of 50,000.
    """
    is_target = labels[:, 1:] != IGNORED
    log_probs = logits[:, :-1][is_target].float().log_softmax(-1)
    return log_probs, labels[:, 1:][is_target], is_target.nonzero()[:, 0]


def main_loss(log_probs: torch.Tensor, targets: torch.Tensor) -> SumAndCount:
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

    The first treats positions as independent; the second sums over them.
    """
    probs = log_probs[:, token_ids].exp()  # (A, U)
    by_class = probs.new_zeros(len(probs), classes).index_add(1, token_classes, probs)  # (A, C)
    log_unnamed = torch.log1p(-by_class.sum(1).clamp(max=1 - 1e-6))  # (A,)
    log_unnamed = log_unnamed.new_zeros(batch).index_add(0, samples, log_unnamed)
    return -torch.expm1(log_unnamed), by_class.new_zeros(batch, classes).index_add(0, samples, by_class)


def style_hit_loss(named: torch.Tensor, applies: torch.Tensor) -> SumAndCount:
    """named (B,) probabilities, applies (B,) -> sum of 1 - named over the samples it applies to, their number."""
    return ((1 - named) * applies).sum(), applies.sum()


def consistency_loss(
    style_logits: torch.Tensor, masses: torch.Tensor, known: torch.Tensor, applies: torch.Tensor, detach_image: bool
) -> SumAndCount:
    """Symmetric KL (Jeffreys) between the style distributions of image and text, over the same classes.

    style_logits, masses (B, C); known (C,): classes with a token of their own. detach_image: the image's side is a
    teacher without gradient.
    """
    image = style_logits.float().masked_fill(~known, -torch.inf)
    image = (image.detach() if detach_image else image).log_softmax(-1)[:, known]
    text = masses[:, known].clamp(min=1e-8).log().log_softmax(-1)
    both = F.kl_div(text, image, reduction="none", log_target=True)
    both = both + F.kl_div(image, text, reduction="none", log_target=True)
    return (both.sum(-1) / 2 * applies).sum(), applies.sum()


def style_head_loss(style_logits: torch.Tensor, style_ids: torch.Tensor) -> SumAndCount:
    """style_logits (B, C), style_ids (B,), -1 = unknown -> sum of the cross-entropies, number of known styles."""
    known = style_ids >= 0
    losses = F.cross_entropy(style_logits.float(), style_ids.clamp(min=0), reduction="none")
    return (losses * known).sum(), known.sum()
