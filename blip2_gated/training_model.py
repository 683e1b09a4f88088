"""The gated model with its losses, as the trainer calls it: model(**batch) -> loss, parts.

parts of a batch as (sum, count): main, style_hit, consistency, style_head; the loss is the weighted sum of their means
"""

import torch
from torch import nn

from blip2_gated.images import TowerFeatures
from blip2_gated.losses import (
    SumAndCount,
    answer_rows,
    consistency_loss,
    main_loss,
    style_head_loss,
    style_hit_loss,
    style_masses,
)
from blip2_gated.model import Blip2OPTGated
from common.models.eval_mode import eval_mode
from common.training.distributed import global_mean, replicated_mean


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
        means = {name: global_mean(*part) for name, part in self.parts(**batch).items()}
        loss = sum(self.weights[name] * value for name, value in means.items())
        return replicated_mean(loss), {name: replicated_mean(value) for name, value in means.items()}

    def parts(
        self,
        labels: torch.Tensor,
        style_ids: torch.Tensor,
        applies: torch.Tensor,
        image: torch.Tensor | None = None,
        patches: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
        **inputs: torch.Tensor,
    ) -> dict[str, SumAndCount]:
        """A batch of VqaDataset -> each part's sum, and the number of tokens or samples it is summed over."""
        features = self.model.features(image, pooled) if patches is None else TowerFeatures(patches, pooled)
        output = self.model(features=features, **inputs)
        log_probs, targets, samples = answer_rows(output.logits, labels)
        parts = {"main": main_loss(log_probs, targets)}
        if output.style_logits is not None:
            parts["style_head"] = style_head_loss(output.style_logits, style_ids)
        if len(self.token_ids) == 0:
            return parts
        words = targets != self.model.prompts.newline  # style words must not replace the newline
        named, masses = style_masses(
            log_probs[words], samples[words], self.token_ids, self.token_classes, len(labels), self.num_classes
        )
        parts["style_hit"] = style_hit_loss(named, applies)
        if output.style_logits is not None:
            parts["consistency"] = consistency_loss(
                output.style_logits, masses, self.known, applies & (style_ids >= 0), self.detach_image
            )
        return parts


@torch.no_grad()
def measure_loss(
    training_model: GatedTrainingModel, loader: torch.utils.data.DataLoader, device: torch.device
) -> dict[str, float]:
    """Each part's mean over a whole data set, and their weighted sum as 'loss', on this device alone."""
    sums: dict[str, torch.Tensor] = {}  # (2,) each
    with eval_mode(training_model):
        for batch in loader:
            batch = {name: value.to(device) for name, value in batch.items()}
            for name, (total, count) in training_model.parts(**batch).items():
                sums[name] = sums.get(name, 0) + torch.stack([total, count])
    means = {name: float(total / count) if count else 0.0 for name, (total, count) in sums.items()}
    return {"loss": sum(training_model.weights[name] * value for name, value in means.items()), **means}
