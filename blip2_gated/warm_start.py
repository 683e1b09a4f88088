"""Warm start of a BLIP-2 from scratch, before all of it is trained together.

1. vision tower and Q-Former: image -> image tokens -> words of the answers about the image
2. language model: image tokens as they are, question -> answer

The published BLIP-2 was assembled likewise, from a vision tower, a Q-Former and a language model that were pretrained.
Trained all at once, a model first learns which answers are frequent, and the quickest way to express that is the same
shift of all image tokens; the Q-Former's LayerNorms then divide away what differs between images.
"""

from collections import defaultdict

import torch

from blip2_gated.dataset import VqaDataset
from blip2_gated.losses import answer_rows, main_loss
from blip2_gated.model import Blip2OPTGated
from common.samples.word_pretraining import minimize, pretrain_on_words

LEARNING_RATE = 1e-3  # peak, of both steps


def pretrain_vision(
    model: Blip2OPTGated, dataset: VqaDataset, steps: int, batch_size: int, seed: int, quiet: bool = True
) -> tuple[float, float]:
    """Step 1 -> loss over words at the start and at the end."""
    groups = defaultdict(list)  # indices of samples by image
    for index, sample in enumerate(dataset.samples):
        groups[sample.path].append(index)
    images = list(groups.values())

    def embed(rows: torch.Tensor) -> torch.Tensor:
        return _image_tokens(model, dataset.collate([dataset[images[row][-1]] for row in rows.tolist()])).mean(1)

    model.train()
    return pretrain_on_words(
        embed,
        [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and "language_model." not in name
        ],
        [" ".join(dataset.samples[index].answer for index in indices) for indices in images],
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        learning_rate=LEARNING_RATE,
        quiet=quiet,
    )


def pretrain_language(
    model: Blip2OPTGated, dataset: VqaDataset, steps: int, batch_size: int, seed: int, quiet: bool = True
) -> tuple[float, float]:
    """Step 2 -> loss over answers at the start and at the end. The vision side is frozen, so no token is shifted."""
    generator, device = torch.Generator().manual_seed(seed), model.mean.device
    model.train()

    def loss() -> torch.Tensor:
        rows = torch.randint(len(dataset), (batch_size,), generator=generator)
        batch = dataset.collate([dataset[row] for row in rows.tolist()])
        with torch.no_grad():
            tokens = _image_tokens(model, batch)
        logits = model.answer_logits(batch["input_ids"].to(device), batch["attention_mask"].to(device), tokens)
        log_probs, targets, _ = answer_rows(logits, batch["labels"].to(device))
        total, count = main_loss(log_probs, targets)
        return total / count

    return minimize(loss, list(model.blip2.language_model.parameters()), steps, LEARNING_RATE, "answers", quiet)


def _image_tokens(model: Blip2OPTGated, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    names = ("image", "question_ids", "question_mask", *(["pooled"] if "pooled" in batch else []))
    image, ids, mask, *pooled = (batch[name].to(model.mean.device) for name in names)
    features = model.features(image, *pooled)
    return model.image_tokens(features.patches, model.control_tokens(features.pooled, ids, mask))
