"""The style encoder's training step, for `estimate.py style`: settings -> model, batch, optimizer.

The sizes of text targets are those of the data folder, where there is one; one image of each style is looked at.
"""

from argparse import Namespace
from pathlib import Path

import torch

import config
from common.cli.settings import read_settings
from dataset import TargetShapes, find_samples, read_target_shapes
from model import StyleTrainingModel
from tools.estimate.training_step import Batch, TrainingStep, adamw, share_of, without_values
from train import build_encoder


def training_step(argv: list[str], world: int = 1) -> TrainingStep:
    """argv: flags of train.py. ValueError, OSError for what is wrong with them."""
    settings = read_settings(config, argv, __doc__)
    settings.pretrained = False
    shapes, notes = _target_shapes(settings)
    with torch.device("meta"):
        size = build_encoder(settings, shapes).tower.image_size
    parts = {name[: -len("_weight")]: value for name, value in vars(settings).items() if name.endswith("_weight")}

    def build(precision: str, checkpointing: bool) -> StyleTrainingModel:
        encoder = build_encoder(Namespace(**{**vars(settings), "gradient_checkpointing": checkpointing}), shapes)
        encoder.train()
        encoder.tower.freeze(settings.freeze_epochs >= settings.epochs)
        return StyleTrainingModel(encoder, parts, settings.temperature)

    def batch(samples: int) -> Batch:
        there = torch.ones(samples, dtype=torch.bool)
        made = {"image": without_values((samples, 3, size, size), torch.uint8)}
        made["style_ids"] = torch.arange(samples) // max(settings.images_per_style, 2)
        if shapes.embed_width:
            made["embed"] = without_values((samples, shapes.length, shapes.embed_width), torch.float32)
            made["mask"] = torch.ones(samples, shapes.length, dtype=torch.int64)
            made |= {"has_embed": there, "has_mask": there}
        if shapes.pooled_width:
            made["pooled"], made["has_pooled"] = without_values((samples, shapes.pooled_width), torch.float32), there
        return made

    return TrainingStep(
        build,
        batch,
        adamw,
        share_of(settings.batch_size, world, "--batch_size"),
        f"{settings.model_name}, {size} px",
        accumulation=settings.accumulation,
        clip_norm=settings.clip_norm,
        average=settings.ema_decay > 0,
        checkpointing=settings.gradient_checkpointing,
        notes=notes,
    )


def _target_shapes(settings: Namespace) -> tuple[TargetShapes, list[str]]:
    if not Path(settings.data_dir).is_dir():
        return TargetShapes(), [f"{settings.data_dir} is not there: without text targets"]
    samples = find_samples(settings.data_dir, settings.ignore_targets)
    shapes = read_target_shapes(list({sample.style: sample for sample in samples}.values()))
    return shapes, [f"text targets as in {settings.data_dir}: {shapes.length} tokens of {shapes.embed_width} numbers"]
