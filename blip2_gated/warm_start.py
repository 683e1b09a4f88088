"""What does a BLIP-2 from scratch learn before everything learns together?

1. tower and Q-Former: image -> image tokens -> which words do the answers about it hold?
2. language model: image tokens as they are, question -> answer

The published one was put together so: a tower and a Q-Former that could see, a language model that could read. All at
once, the first thing to be learnt is which answers are common, and the quickest way to say so is one and the same shift
of all image tokens; the Q-Former's LayerNorms then divide away what differs between images.
"""

import torch

from blip2_gated.dataset import VqaDataset
from blip2_gated.losses import answer_rows, main_loss
from blip2_gated.model import Blip2OPTGated
from common.samples.word_pretraining import minimize, pretrain_on_words

LEARNING_RATE = 1e-3  # of both, at its peak


def learn_to_see(
    model: Blip2OPTGated, dataset: VqaDataset, steps: int, batch_size: int, seed: int, quiet: bool = True
) -> tuple[float, float]:
    """Step 1 -> loss over words at the beginning and at the end."""
    answers: dict[str, list[str]] = {}
    example = {sample.image: index for index, sample in enumerate(dataset.samples)}  # a sample that shows the image
    for sample in dataset.samples:
        answers.setdefault(sample.image, []).append(sample.answer)
    images = list(answers)

    def see(rows: torch.Tensor) -> torch.Tensor:
        batch = dataset.collate([dataset[example[images[row]]] for row in rows.tolist()])
        return _image_tokens(model, batch).mean(1)

    learning = [one for name, one in model.named_parameters() if one.requires_grad and "language_model." not in name]
    model.train()
    return pretrain_on_words(
        see,
        learning,
        [" ".join(answers[image]) for image in images],
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        learning_rate=LEARNING_RATE,
        quiet=quiet,
    )


def learn_to_read(
    model: Blip2OPTGated, dataset: VqaDataset, steps: int, batch_size: int, seed: int, quiet: bool = True
) -> tuple[float, float]:
    """Step 2 -> loss over answers at the beginning and at the end. What sees stands still: nothing can be shifted."""
    generator, device = torch.Generator().manual_seed(seed), model.mean.device
    model.train()

    def loss() -> torch.Tensor:
        rows = torch.randint(len(dataset), (batch_size,), generator=generator).tolist()
        batch = dataset.collate([dataset[row] for row in rows])
        with torch.no_grad():
            tokens = _image_tokens(model, batch)
        logits = model.answer_logits(batch["input_ids"].to(device), batch["attention_mask"].to(device), tokens)
        total, count = main_loss(*answer_rows(logits, batch["labels"].to(device))[:2])
        return total / count

    return minimize(loss, list(model.blip2.language_model.parameters()), steps, LEARNING_RATE, "answers", quiet)


def _image_tokens(model: Blip2OPTGated, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    image, ids, mask = (batch[name].to(model.mean.device) for name in ("image", "question_ids", "question_mask"))
    features = model.features(image)
    return model.image_tokens(features.patches, model.control_tokens(features.pooled, ids, mask))
