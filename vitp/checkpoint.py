"""Whole models from folders in Hugging Face's or InternVL's layout, fitted to images and tokenizer.

folder, or a file of weights in it -> VisualInstructionModel, every tensor checked -> other tile sizes, further tokens

Sizes are those of the tensors. No code from the folder is run.
"""

import re
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from transformers import AutoConfig

from common.models.build_arguments import building
from common.models.checkpoint_file import check_tensors
from common.models.model_config import read_model_config
from common.models.weight_files import read_weights, weights_folder
from vitp.chat_template import CONTEXT
from vitp.key_mapping import TOWER, Weights, to_model_names, vision_config
from vitp.model import TIMM, VIT, VisualInstructionConfig, VisualInstructionModel

HEAD = "lm_head.weight"
RELEASED = re.compile(r"InternVL[\d_]+-")  # names on the Hub
UNUSED_SETTINGS = ("auto_map", "_name_or_path", "architectures", "attn_implementation")


def load_model(path: str | Path, drop_path_rate: float = 0.0, **loading) -> VisualInstructionModel:
    """A whole model from a folder in either layout. loading: dtype, attn_implementation, as from_pretrained takes them.

    ValueError where a tensor is missing, unknown, or of another shape.
    """
    folder = weights_folder(path)
    download = f"; make it: hf download OpenGVLab/{folder.name} --local-dir {folder}"
    hint = "expected a model's folder" + (download if RELEASED.match(folder.name) else "")
    settings = read_model_config(folder / "config.json", hint)
    with building(folder, settings):
        return _build(path, settings, drop_path_rate, **loading)


def _build(path: str | Path, settings: dict, drop_path_rate: float, **loading) -> VisualInstructionModel:
    folder, kind = weights_folder(path), settings.get("model_type")
    if kind == "internvl_chat":
        config, weights = _read_internvl(path, settings)
    elif kind == "internvl":
        config = VisualInstructionConfig.from_dict(settings)
        weights = to_model_names(read_weights(path))
        if config.vision_config.model_type == VIT:
            config.vision_config = vision_config(_tower(weights), settings["vision_config"])
    else:
        raise ValueError(
            f"{folder}: model_type '{kind}'; expected internvl (Hugging Face) or internvl_chat (InternVL's)"
        )
    if config.vision_config.model_type == TIMM:
        config.vision_config.model_args = {**config.vision_config.model_args, "drop_path_rate": drop_path_rate}
    with torch.device("meta"):
        expected = VisualInstructionModel(config).state_dict()
    if config.tie_word_embeddings:
        weights.pop(HEAD, None)
        expected.pop(HEAD)
    check_tensors(weights, expected, folder, "this model")
    return VisualInstructionModel.from_pretrained(None, config=config, state_dict=weights, **loading)


def fit_to_images(model: VisualInstructionModel, image_size: int | None) -> int:
    """Make the model take tiles of image_size pixels (None: its own) -> image tokens of a tile.

    The position table of an InternViT is resampled once, bicubic. Other backbones are built for one size.
    """
    config = model.config.vision_config
    own_size, patch = config.image_size[0], config.patch_size[0]
    size = image_size or own_size
    step = patch * round(1 / model.config.downsample_ratio)
    if size % step or size < step:
        multiples = max(size // step, 1) * step, (size // step + 1) * step
        raise ValueError(
            f"--force_image_size {size}: patches of {patch} pixels, {step // patch} x {step // patch} to a token, need "
            f"a multiple of {step}; the nearest is {min(multiples, key=lambda multiple: abs(multiple - size))}"
        )
    if size != own_size:
        if config.model_type != VIT:
            raise ValueError(f"--force_image_size {size}: this {config.architecture} was built for {own_size} pixels")
        _resample_positions(model.model.vision_tower, size)
    model.config.image_seq_length = (size // step) ** 2
    return model.config.image_seq_length


def fit_to_tokenizer(model: VisualInstructionModel, tokenizer, end_token_id: int) -> None:
    """Embeddings for every token; the ids of the image placeholder and of the end of an answer, for generate."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    model.config.image_token_id = tokenizer.convert_tokens_to_ids(CONTEXT)
    tokenizer.eos_token_id = model.generation_config.eos_token_id = end_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _read_internvl(path: str | Path, settings: dict) -> tuple[VisualInstructionConfig, Weights]:
    if (version := settings.get("ps_version", "v1")) != "v2":
        raise ValueError(f"{path}: ps_version {version}; transformers' InternVL implements v2 only")
    text = {name: value for name, value in settings["llm_config"].items() if name not in UNUSED_SETTINGS}
    kind, heads = text.pop("model_type"), None
    if kind == "internlm2":  # Llama with fused queries, keys and values
        kind, heads = "llama", (text["num_attention_heads"], text["num_key_value_heads"])
    text_config = AutoConfig.for_model(kind, **text)
    weights = to_model_names(read_weights(path), heads)
    embeddings, head = weights["model.language_model.embed_tokens.weight"], weights.get(HEAD)
    text_config.vocab_size = len(embeddings)
    tied = head is None or (bool(text_config.tie_word_embeddings) and torch.equal(head, embeddings))
    text_config.tie_word_embeddings = tied
    return VisualInstructionConfig(
        vision_config=vision_config(_tower(weights), settings["vision_config"]),
        text_config=text_config,
        downsample_ratio=settings.get("downsample_ratio", 0.5),
        vision_feature_layer=settings.get("select_layer", -1),
        tie_word_embeddings=tied,
    ), weights


def _tower(weights: Weights) -> Weights:
    return {name.removeprefix(TOWER): value for name, value in weights.items() if name.startswith(TOWER)}


def _resample_positions(tower: nn.Module, size: int) -> None:
    embeddings, side = tower.embeddings, size // tower.config.patch_size[0]
    embeddings.position_embeddings = nn.Parameter(
        resample_abs_pos_embed(embeddings.position_embeddings.data, [side, side], antialias=False)
    )
    tower.config.image_size = embeddings.image_size = [size, size]
    embeddings.patch_embeddings.image_size = [size, size]
    embeddings.patch_embeddings.num_patches = side**2
    embeddings.patch_embeddings.patch_shape = (side, side)
