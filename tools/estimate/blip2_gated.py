"""Training step of BLIP2-gated, for `python tools/estimate/estimate.py blip2`.

Config and tokenizer of a published BLIP-2 are read, its weights are not. Texts are as long as data.max_tokens or
--text_tokens allows.
"""

from argparse import Namespace
from typing import Any

import torch

from blip2_gated import config
from blip2_gated.backbone import is_config, read_blip2_config
from blip2_gated.checkpoint import build_arguments, store_frozen
from blip2_gated.dataset import VqaSample
from blip2_gated.feature_cache import frozen_towers
from blip2_gated.model import Blip2OPTGated
from blip2_gated.prompts import Encoded
from blip2_gated.train import check_settings, make_training_model
from blip2_gated.training_model import GatedTrainingModel
from common.cli.settings import read_settings
from tools.estimate.training_step import Batch, TrainingStep, adamw, meta_tensor, samples_per_device

STYLES = ("flat", "woodcut", "watercolour", "pixel")  # in place of the training set's
QUESTION = "In which style is this picture drawn?"


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of blip2_gated/train.py. text_tokens: of a question, and of an answer; 0: data.max_tokens."""
    settings = read_settings(config, argv, __doc__)
    check_settings(settings)
    settings = Namespace(**{**vars(settings), "model_efficientnet_weights": False})
    samples = [VqaSample(number, "", QUESTION, style, style, "style") for number, style in enumerate(STYLES)]
    arguments = _without_weights(build_arguments(settings, samples))
    with torch.device("meta"):
        sketch = Blip2OPTGated.from_build(arguments)
        prompts, size = sketch.prompts, sketch.image_size
        features = sketch.features(meta_tensor((1, 3, size, size), torch.uint8))._asdict()
    cached = frozen_towers(sketch) if settings.training_cache_features else {}
    shapes = {name: features[name].shape[1:] for name in cached}
    length = min(text_tokens or prompts.max_tokens, prompts.max_tokens)

    def build(precision: str, checkpointing: bool) -> GatedTrainingModel:
        model = Blip2OPTGated.from_build(arguments)
        frozen_dtype = precision if settings.model_frozen_dtype == "auto" else settings.model_frozen_dtype
        store_frozen(model, frozen_dtype, torch.device("cpu"))
        return make_training_model(settings, model).train()

    def batch(samples: int) -> Batch:
        text = [prompts.newline] * length  # of the question, and of the answer
        rows = [
            Encoded([*prompts.head, *text, *prompts.tail], text, text[: length - (number > 0)], False)
            for number in range(samples)
        ]
        inputs = {
            **prompts.collate(rows),
            "style_ids": torch.arange(samples) % len(STYLES),
            "applies": torch.ones(samples, dtype=torch.bool),
        }
        inputs |= {name: meta_tensor((samples, *shape), torch.float32) for name, shape in shapes.items()}
        if "patches" not in shapes:
            inputs["image"] = meta_tensor((samples, 3, size, size), torch.uint8)
        return inputs

    trains = f"gates {settings.model_gating_type}, trains {settings.model_train}"
    return TrainingStep(
        build,
        batch,
        adamw,
        samples_per_device(settings.training_batch_size, world, "--training.batch_size"),
        f"{settings.model_blip2}, {trains}, {size} px, {2 * length} tokens of text",
        unit="questions",
        accumulation=settings.training_accumulation,
        clip_norm=settings.training_clip_norm,
        checkpointing=None,
        assumptions=["features of both towers are cached: neither tower runs"] if cached else [],
    )


def _without_weights(arguments: dict[str, Any]) -> dict[str, Any]:
    """Build arguments whose BLIP-2 is a name -> the same from its config, as in a file that holds every weight."""
    name = arguments["blip2"].get("source")
    if name is None or is_config(name):
        return arguments
    blip2, tokenizer = read_blip2_config(name)
    return {**arguments, "blip2": {"config": blip2.to_dict(), "tokenizer": tokenizer.backend_tokenizer.to_str()}}
