"""Training step of CLIP, for `python tools/estimate/estimate.py clip`. No weights are read."""

from argparse import Namespace

import torch

from clip import config
from clip.initial_model import build_model, check_settings, is_complete_model
from clip.training_model import CLIPTrainingModel
from common.cli.settings import read_settings
from tools.estimate.training_step import Batch, TrainingStep, adamw, meta_tensor, samples_per_device


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of clip/train.py. text_tokens: of the longest text of a batch; 0: the context length."""
    settings = read_settings(config, argv, __doc__)
    check_settings(settings)
    if is_complete_model(settings.model_name):
        raise ValueError(f"--model_name {settings.model_name}: is a trained model; give the name of its architecture")
    settings = Namespace(**{**vars(settings), "pretrained": "", "image_weights": False})
    with torch.device("meta"):
        model = build_model(settings)
    size, context = model.image_size, model.tokenizer.context_length
    tokens = min(text_tokens or context, context)

    def build(precision: str, checkpointing: bool) -> CLIPTrainingModel:
        model = build_model(Namespace(**{**vars(settings), "gradient_checkpointing": checkpointing}))
        return CLIPTrainingModel(model, settings.loss, not settings.single_positive, settings.accum_batches).train()

    def batch(samples: int) -> Batch:
        samples *= settings.accum_batches
        ids = torch.arange(samples)
        return {
            "image": meta_tensor((samples, 3, size, size), torch.uint8),
            "tokens": torch.ones(samples, tokens, dtype=torch.int64),
            "text_ids": ids,
            "group_ids": ids.clone(),
        }

    slices = f", {settings.accum_batches} slices" if settings.accum_batches > 1 else ""
    return TrainingStep(
        build,
        batch,
        adamw,
        samples_per_device(settings.batch_size, world, "--batch_size"),
        f"{settings.model_name}, {size} px, {tokens} tokens{slices}",
        unit="pairs",
        clip_norm=settings.gradient_clip_norm,
        moving_average=settings.ema_decay > 0,
        checkpointing=settings.gradient_checkpointing,
    )
