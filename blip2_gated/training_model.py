"""The gated model as the training loop wants it: model(**batch) -> loss, parts.

parts of a batch as (sum, count): main, style_hit, consistency, style_head; the loss is their weighted sum of means
"""

import torch
from torch import nn

from blip2_gated.losses import (
    answer_rows,
    consistency_loss,
    main_loss,
    mean,
    style_head_loss,
    style_hit_loss,
    style_masses,
)
from blip2_gated.model import Blip2OPTGated, Features
from common.training.distributed import replicated_mean

Parts = dict[str, tuple[torch.Tensor, torch.Tensor]]


class GatedTrainingModel(nn.Module):
    """weights: of main, style_hit, consistency, style_head. detach_image: see losses.consistency_loss."""

    def __init__(self, model: Blip2OPTGated, weights: dict[str, float], detach_image: bool = True):
        super().__init__()
        self.model, self.weights, self.detach_image = model, weights, detach_image
        styles = model.styles
        self.num_classes = max(len(styles.labels), 1)
        known = torch.zeros(self.num_classes, dtype=torch.bool)
        known[styles.token_classes] = True
        self.register_buffer("token_ids", styles.token_ids, persistent=False)
        self.register_buffer("token_classes", styles.token_classes, persistent=False)
        self.register_buffer("known", known, persistent=False)

    def forward(self, **batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        means = {name: mean(part) for name, part in self.parts(**batch).items()}
        loss = sum(self.weights[name] * value for name, value in means.items())
        return replicated_mean(loss), {name: replicated_mean(value) for name, value in means.items()}

    def parts(
        self,
        labels: torch.Tensor,
        style_ids: torch.Tensor,
        applies: torch.Tensor,
        patches: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> Parts:
        """A batch of VqaDataset -> each part's sum and the number of tokens or samples it is over."""
        features = None if patches is None else Features(patches, pooled)
        output = self.model(features=features, **inputs)
        log_probs, targets, samples = answer_rows(output.logits, labels)
        parts: Parts = {"main": main_loss(log_probs, targets)}
        if output.style_logits is not None:
            parts["style_head"] = style_head_loss(output.style_logits, style_ids)
        if len(self.token_ids) == 0:
            return parts
        words = targets != self.model.prompts.newline  # the newline is to stay a newline
        named, masses = style_masses(
            log_probs[words], samples[words], self.token_ids, self.token_classes, len(labels), self.num_classes
        )
        parts["style_hit"] = style_hit_loss(named, applies)
        if output.style_logits is not None:
            known_style = applies & (style_ids >= 0)
            parts["consistency"] = consistency_loss(
                output.style_logits, masses, self.known, known_style, self.detach_image
            )
        return parts


@torch.no_grad()
def measure_loss(
    learner: GatedTrainingModel, loader: torch.utils.data.DataLoader, device: torch.device
) -> dict[str, float]:
    """Each part's mean over a whole data set, and their weighted sum as 'loss'; nothing is shared between devices."""
    sums: dict[str, list[torch.Tensor]] = {}
    was_training = learner.training
    learner.eval()
    for batch in loader:
        for name, part in learner.parts(**{key: value.to(device) for key, value in batch.items()}).items():
            before = sums.get(name, [0, 0])
            sums[name] = [total + one for total, one in zip(before, part)]
    learner.train(was_training)
    means = {name: float(total / count) if count else 0.0 for name, (total, count) in sums.items()}
    return {"loss": sum(learner.weights[name] * value for name, value in means.items()), **means}
