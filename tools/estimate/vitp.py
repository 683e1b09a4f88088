"""Training step of ViTP, for `python tools/estimate/estimate.py vitp`.

Configs of a model or of its parts are read, weights are not. Every sample has one image of as many tiles as the meta
file or max_dynamic_patch allows, with thumbnail, and as much text as max_seq_length leaves room for, or --text_tokens.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from common.models.backbone import split_source
from common.models.lora import set_trainable
from common.models.model_config import read_model_config
from common.training.hf_arguments import build_arguments
from tools.estimate.training_step import Batch, TrainingStep, meta_tensor, trainer_options
from vitp.arguments import RunArguments, trainable_parts
from vitp.checkpoint import fit_to_images
from vitp.compose import build_model
from vitp.config import DataArguments, ModelArguments, read_values
from vitp.meta_file import read_meta
from vitp.model import VisualInstructionConfig, VisualInstructionModel, set_drop_path
from vitp.token_masking import build_masking

IMAGE, WORD, IGNORED = 0, 1, -100  # token numbers that every vocabulary has


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of vitp/train.py. text_tokens: of a sample, all with labels; 0: as many as fit."""
    kinds = (ModelArguments, DataArguments, RunArguments)
    named, data, run = build_arguments(kinds, read_values([*argv, "--use_cpu", "true"]))
    if not named.model_name_or_path and not (named.vision_config and named.llm):
        raise ValueError("give --model_name_or_path, or --vision_config and --llm")
    with torch.device("meta"):
        sketch, tokens = _model(named, data)
    size = cast(Any, sketch.config.vision_config).image_size[0]
    grid = flag = data.max_dynamic_patch if data.dynamic_image_size else 1
    if data.meta_path and Path(data.meta_path).is_file():  # takes precedence over the flag, as in training
        grid = max(source.max_tiles or flag for source in read_meta(data.meta_path))
    tiles = grid + (data.use_thumbnail and grid > 1)
    room = data.max_seq_length - tiles * tokens
    if room < 1:
        raise ValueError(
            f"--max_seq_length {data.max_seq_length}: {tiles} tiles of {tokens} tokens leave no room for words; "
            "give a smaller --max_dynamic_patch"
        )
    words = min(text_tokens or room, room)

    def build(precision: str, checkpointing: bool) -> nn.Module:
        model, _ = _model(named, data)
        with torch.device("cpu"):
            set_drop_path(model, named.drop_path)
        model.config.image_token_id = IMAGE
        model.masking = build_masking(named.TMAug_mode, named.TMAug_prob, named.TMAug_ratio, seed=run.seed)
        trained = set_trainable(model, trainable_parts(named))
        if checkpointing:
            cast(Any, trained).activation_checkpointing_enable(run.activation_checkpointing_kwargs)
        return trained.train()

    def batch(samples: int) -> Batch:
        ids = torch.tensor([IMAGE] * (tiles * tokens) + [WORD] * words).repeat(samples, 1)
        mask, labels = torch.ones_like(ids), ids.masked_fill(ids == IMAGE, IGNORED)
        if words > 1:  # samples of equal length are rare, and padding needs a mask
            mask[1:, -1], labels[1:, -1] = 0, IGNORED
        inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}
        return {**inputs, "pixel_values": meta_tensor((samples * tiles, 3, size, size), torch.float32)}

    source = named.model_name_or_path or f"{Path(named.vision_config).name} and {Path(named.llm).name}"
    return TrainingStep(
        build=build,
        batch=batch,
        description=f"{source}, {tiles} tile(s) of {size} px, {tiles * tokens} + {words} tokens",
        assumptions=[f"images of {grid} tiles, the maximum in {data.meta_path}"] if grid != flag else [],
        **trainer_options(run),
    )


def _model(named: ModelArguments, data: DataArguments) -> tuple[VisualInstructionModel, int]:
    """-> model with random weights, tokens of a tile"""
    loading = {"dtype": torch.float32, "attn_implementation": named.attn_implementation or "sdpa"}
    if named.model_name_or_path:
        folder = Path(named.model_name_or_path)
        config = read_model_config(folder / "config.json", "expected a model's folder")
        if config.get("model_type") != "internvl":
            raise ValueError(
                f"{folder}: model_type '{config.get('model_type')}'; only Hugging Face's layout (internvl), or "
                "--vision_config and --llm, can be estimated: InternVL's own layout states its sizes by its weights"
            )
        model = VisualInstructionModel._from_config(VisualInstructionConfig.from_dict(config), **loading)
    else:
        vision, llm = _config_of(named.vision_config or ""), _config_of(named.llm or "")
        size, ratio = data.force_image_size, named.down_sample_ratio
        model, _ = build_model(vision, llm, size, named.drop_path, ratio, **loading)
    return model, fit_to_images(model, data.force_image_size)


def _config_of(part: str) -> str:
    """A part's folder -> its config.json; a timm name without the tag or file of its weights."""
    path = Path(part)
    if path.suffix == ".gguf":
        raise ValueError(f"{part}: an estimate reads configs; give the language model's config.json (--llm)")
    if path.suffix == ".json":
        return part
    return str(path / "config.json") if path.is_dir() else split_source(part)[0].partition(".")[0]
