"""BLIP2-gated's training step, for `python tools/estimate/estimate.py blip2`: settings -> model, batch, optimizer.

Of a published BLIP-2 config and tokenizer are read, weights are not. Texts are as long as data.max_tokens allows, or of
the length that is asked for.
"""

from argparse import Namespace
from typing import Any

import torch
from transformers import AutoTokenizer, Blip2Config

from blip2_gated import config
from blip2_gated.backbone import IMAGE, is_config
from blip2_gated.checkpoint import build_gated, make_recipe, store_frozen
from blip2_gated.prompts import Encoded
from blip2_gated.train import check, learner_of
from blip2_gated.training_model import GatedTrainingModel
from common.cli.settings import read_settings
from tools.estimate.training_step import Batch, TrainingStep, adamw, share_of, without_values

STYLES = ("flat", "woodcut", "watercolour", "pixel")  # stand for the training set's
WORDS = "Question: In which style is this picture drawn? Answer: "  # what a tokenizer from scratch is learnt from


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of blip2_gated/train.py. text_tokens: of a question, and of an answer; 0: data.max_tokens."""
    settings = read_settings(config, argv, __doc__)
    check(settings)
    settings = Namespace(**{**vars(settings), "model_efficientnet_weights": False})
    recipe = _without_weights(make_recipe(settings, STYLES, [WORDS, *STYLES], STYLES))
    with torch.device("meta"):
        sketch = build_gated(recipe)
    prompts, size, cached = sketch.prompts, sketch.image_size, settings.training_cache_features
    length = min(text_tokens or prompts.max_tokens, prompts.max_tokens)
    with torch.device("meta"):
        seen = sketch.features(without_values((1, 3, size, size), torch.uint8)) if cached else None

    def build(precision: str, checkpointing: bool) -> GatedTrainingModel:
        model = build_gated(recipe)
        half = "bf16" if precision == "bf16" else "fp32"
        stored = half if settings.model_frozen_dtype == "auto" else settings.model_frozen_dtype
        store_frozen(model, stored, torch.device("cpu"))
        return learner_of(settings, model).train()

    def batch(samples: int) -> Batch:
        question, answer = [prompts.newline] * length, [prompts.newline] * length
        rows = [
            Encoded([*prompts.head, *question, *prompts.tail], question, answer[: length - (number > 0)], False)
            for number in range(samples)
        ]
        made = {**prompts.collate(rows), "style_ids": torch.arange(samples) % len(STYLES)}
        made["applies"] = torch.ones(samples, dtype=torch.bool)
        if seen is None:
            return {"image": without_values((samples, 3, size, size), torch.uint8), **made}
        made["patches"] = without_values((samples, *seen.patches.shape[1:]), torch.float32)
        if seen.pooled is not None:
            made["pooled"] = without_values((samples, *seen.pooled.shape[1:]), torch.float32)
        return made

    gates = settings.model_gating_type
    return TrainingStep(
        build,
        batch,
        adamw,
        share_of(settings.training_batch_size, world, "--training.batch_size"),
        f"{settings.model_blip2}, gates {gates}, learns {settings.model_train}, {size} px, {2 * length} tokens of text",
        unit="questions",
        accumulation=settings.training_accumulation,
        clip_norm=settings.training_clip_norm,
        checkpointing=None,
        notes=["towers' outputs are kept: neither tower runs"] if cached else [],
    )


def _without_weights(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose BLIP-2 is a name -> the same built from its config, as in a file that holds every weight."""
    name = recipe["blip2"].get("source")
    if name is None or is_config(name):
        return recipe
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        found = Blip2Config.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--model.blip2 {name}: no config to be had ({str(error).strip().splitlines()[0]})") from None
    if found.image_token_index is None:
        found.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE)
    return {**recipe, "blip2": {"config": found.to_dict()}, "tokenizer": tokenizer.backend_tokenizer.to_str()}
