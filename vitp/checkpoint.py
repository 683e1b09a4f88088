"""Where does a whole model come from, and how does it fit images and words?

load_model        a folder in Hugging Face's or InternVL's layout -> VisualInstructionModel, no tensor left over
fit_to_images     tiles of another size; fit_to_tokenizer: further tokens

Sizes are what the tensors have. No code from the folder is run.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, LlamaConfig

from vitp.chat_template import CONTEXT
from vitp.key_mapping import TOWER, Weights, to_model_names, vision_config
from vitp.model import TIMM, VIT, VisualInstructionConfig, VisualInstructionModel
from vitp.weights import check_names, read_weights

INTERNLM2_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def load_model(folder: str | Path, drop_path_rate: float = 0.0, **loading) -> VisualInstructionModel:
    """A whole model from a folder in either layout. loading: dtype, attn_implementation, as from_pretrained takes them.

    Raises where a tensor is missing, of another shape, or has no place.
    """
    folder = Path(folder)
    facts = read_json(folder / "config.json")
    kind = facts.get("model_type")
    if kind == "internvl_chat":
        config, weights = _internvl_config(folder, facts)
    elif kind == "internvl":
        config = VisualInstructionConfig.from_dict(facts)
        weights = to_model_names(read_weights(folder))
        if config.vision_config.model_type == VIT:
            config.vision_config = vision_config(_tower(weights), facts["vision_config"])
    else:
        raise ValueError(
            f"{folder}: model_type '{kind}'; expected internvl (Hugging Face) or internvl_chat (InternVL's)"
        )
    if config.vision_config.model_type == TIMM:
        config.vision_config.model_args = {**config.vision_config.model_args, "drop_path_rate": drop_path_rate}
    return _with_weights(config, weights, folder, **loading)


def fit_to_images(model: VisualInstructionModel, image_size: int | None) -> int:
    """Make the model take tiles of image_size pixels (None: its own) -> image tokens of a tile.

    An InternViT's position table is resampled once, bicubic. Other backbones are built for their size.
    """
    config = model.config.vision_config
    own = config.image_size[0]
    patch = config.patch_size[0]
    size = image_size or own
    step = patch * round(1 / model.config.downsample_ratio)
    if size % step or size < step:
        near = sorted({max(size // step, 1) * step, (size // step + 1) * step}, key=lambda one: abs(one - size))
        raise ValueError(
            f"--force_image_size {size}: patches of {patch} pixels, {step // patch} x {step // patch} to a token, need "
            f"a multiple of {step}; the nearest is {near[0]}"
        )
    if size != own:
        if config.model_type != VIT:
            raise ValueError(f"--force_image_size {size}: this {config.architecture} was built for {own} pixels")
        _resample_positions(model.model.vision_tower, size)
    model.config.image_seq_length = (size // step) ** 2
    return model.config.image_seq_length


def fit_to_tokenizer(model: VisualInstructionModel, tokenizer, end_token_id: int) -> None:
    """Enough embeddings for every token; the ids of the image placeholder and of what ends an answer, for generate."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    model.config.image_token_id = tokenizer.convert_tokens_to_ids(CONTEXT)
    tokenizer.eos_token_id = model.generation_config.eos_token_id = end_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a model's folder with its config.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def _internvl_config(folder: Path, facts: dict) -> tuple[VisualInstructionConfig, Weights]:
    if facts.get("ps_version", "v1") != "v2":
        raise ValueError(
            f"{folder}: ps_version {facts.get('ps_version', 'v1')}; transformers' InternVL computes v2 alone"
        )
    said = dict(facts["llm_config"])
    heads = None
    if said.get("model_type") == "internlm2":
        heads = said["num_attention_heads"], said["num_key_value_heads"]
        said = {name: value for name, value in said.items() if name in INTERNLM2_SETTINGS}
        text_config = LlamaConfig(**said)
    else:
        dead = ("auto_map", "_name_or_path", "architectures", "attn_implementation")
        said = {name: value for name, value in said.items() if name not in dead}
        text_config = AutoConfig.for_model(said.pop("model_type"), **said)
    weights = to_model_names(read_weights(folder), heads)
    embeddings, head = weights["model.language_model.embed_tokens.weight"], weights.get("lm_head.weight")
    text_config.vocab_size = len(embeddings)
    tied = head is None or (bool(text_config.tie_word_embeddings) and torch.equal(head, embeddings))
    text_config.tie_word_embeddings = tied
    if head is not None and tied:
        del weights["lm_head.weight"]
    return VisualInstructionConfig(
        vision_config=vision_config(_tower(weights), facts["vision_config"]),
        text_config=text_config,
        downsample_ratio=facts.get("downsample_ratio", 0.5),
        vision_feature_layer=facts.get("select_layer", -1),
        tie_word_embeddings=tied,
    ), weights


def _tower(weights: Weights) -> Weights:
    return {name.removeprefix(TOWER): value for name, value in weights.items() if name.startswith(TOWER)}


def _with_weights(config, weights: Weights, where, **loading) -> VisualInstructionModel:
    wanted = _names(config)
    if config.tie_word_embeddings:
        wanted.discard("lm_head.weight")
        weights = {name: value for name, value in weights.items() if name != "lm_head.weight"}
    check_names(set(weights), wanted, where)
    try:
        return VisualInstructionModel.from_pretrained(None, config=config, state_dict=weights, **loading)
    except RuntimeError as error:
        raise ValueError(f"{where}: its tensors do not fit its config.json: {' '.join(str(error).split())}") from None


def _names(config) -> set[str]:
    with torch.device("meta"):
        return set(VisualInstructionModel(config).state_dict())


def _resample_positions(tower: nn.Module, size: int) -> None:
    table, patch = tower.embeddings.position_embeddings, tower.config.patch_size[0]
    side, wanted = round((table.shape[1] - 1) ** 0.5), size // patch
    grid = table.data[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(table)
    tower.embeddings.position_embeddings = nn.Parameter(torch.cat([table.data[:, :1], patches], dim=1))
    tower.config.image_size = [size, size]
    tower.embeddings.image_size = [size, size]
    tower.embeddings.patch_embeddings.image_size = [size, size]
    tower.embeddings.patch_embeddings.num_patches = wanted**2
    tower.embeddings.patch_embeddings.patch_shape = (wanted, wanted)
