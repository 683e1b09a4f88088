"""Training step of the style encoder, for `python tools/estimate/estimate.py style`.

The sizes of text targets are those of the data folder, if there is one; one sample of each style is read.
"""

from argparse import Namespace
from pathlib import Path

import torch

import config
from common.cli.settings import read_settings
from dataset import find_samples
from model import StyleTrainingModel
from targets import TargetShapes, read_target_shapes
from tools.estimate.training_step import Batch, TrainingStep, adamw, meta_tensor, samples_per_device
from train import build_encoder


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of train.py."""
    if text_tokens:
        raise ValueError("--text_tokens: style reads no text")
    settings = read_settings(config, argv, __doc__)
    settings.frozen_maps *= bool(settings.pretrained)
    settings.pretrained = False
    shapes, assumption = TargetShapes(), f"no text targets, because {settings.data_dir} does not exist"
    if Path(settings.data_dir).is_dir():
        shapes = read_target_shapes(find_samples(settings.data_dir, settings.ignore_targets))
        assumption = f"text targets as in {settings.data_dir}: {shapes.length} tokens of {shapes.embed_width} numbers"
    with torch.device("meta"):
        size = build_encoder(settings, shapes).tower.image_size
    loss_weights = {
        name.removesuffix("_weight"): value for name, value in vars(settings).items() if name.endswith("_weight")
    }

    def build(precision: str, checkpointing: bool) -> StyleTrainingModel:
        encoder = build_encoder(Namespace(**{**vars(settings), "gradient_checkpointing": checkpointing}), shapes)
        encoder.train()
        encoder.tower.freeze(settings.freeze_epochs >= settings.epochs)
        return StyleTrainingModel(encoder, loss_weights, settings.temperature)

    def batch(samples: int) -> Batch:
        present = torch.ones(samples, dtype=torch.bool)
        inputs = {
            "image": meta_tensor((samples, 3, size, size), torch.uint8),
            "style_ids": torch.arange(samples) // max(settings.images_per_style, 2),
        }
        if shapes.embed_width:
            inputs |= {
                "embed": meta_tensor((samples, shapes.length, shapes.embed_width), torch.float32),
                "mask": torch.ones(samples, shapes.length, dtype=torch.int64),
                "has_embed": present,
                "has_mask": present,
            }
        if shapes.pooled_width:
            inputs |= {"pooled": meta_tensor((samples, shapes.pooled_width), torch.float32), "has_pooled": present}
        return inputs

    return TrainingStep(
        build,
        batch,
        adamw,
        samples_per_device(settings.batch_size, world, "--batch_size"),
        f"{settings.model_name}, {size} px",
        accumulation=settings.accumulation,
        clip_norm=settings.clip_norm,
        moving_average=settings.ema_decay > 0,
        checkpointing=settings.gradient_checkpointing,
        assumptions=[assumption],
    )
