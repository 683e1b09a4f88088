"""How is a model made of a vision encoder and a language model that have never met?

vision: timm name, InternViT folder or config.json  }
llm: causal LM folder, .gguf or config.json         } -> VisualInstructionModel with a new projector
"""

from pathlib import Path

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, TimmWrapperConfig

from common.cli.settings import unknown_name
from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD
from common.models.timm_tokens import split_tokens
from vitp.checkpoint import read_json
from vitp.key_mapping import Weights
from vitp.model import VIT, VisualInstructionConfig, VisualInstructionModel
from vitp.vision_encoder import read_vit
from vitp.weights import check_names

FACTOR = 2  # patches a side that pixel shuffle makes one token


def build_model(
    vision: str, llm: str, image_size: int | None = None, drop_path_rate: float = 0.0, **loading
) -> tuple[VisualInstructionModel, dict]:
    """A model of parts, with a new projector -> model, {"image_mean", "image_std"} as its vision encoder wants them.

    vision: a timm name (with a tag, 'vit_tiny_patch16_224.augreg_in21k', its weights are fetched), or an InternViT: a
    config.json, or a folder of that and weights, of a whole model too. llm: a causal language model's folder, .gguf
    file, or config.json.
    Without weights a part begins at random.
    """
    text_config, language_model = _language_model(llm)
    with torch.device("meta"):
        names_are_known = hasattr(AutoModel.from_config(text_config), "embed_tokens")
    # transformers' InternVL ties its head to `embed_tokens`; of a model that calls them otherwise the head is copied.
    text_config.tie_word_embeddings = bool(text_config.tie_word_embeddings) and names_are_known
    tower_config, tower_weights, statistics = _vision_encoder(vision, image_size, drop_path_rate)
    config = VisualInstructionConfig(
        vision_config=tower_config,
        text_config=text_config,
        downsample_ratio=1 / FACTOR,
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    model = VisualInstructionModel._from_config(config, **loading)
    embeddings = getattr(model.model.vision_tower, "embeddings", None)
    if embeddings is not None and not tower_weights:  # transformers begins with zeros, where all patches look alike
        nn.init.trunc_normal_(embeddings.position_embeddings, std=0.02)
        nn.init.trunc_normal_(embeddings.cls_token, std=0.02)
    if tower_weights:
        _fill(model.model.vision_tower, tower_weights, vision)
    if language_model is not None:
        _fill(model.model.language_model, getattr(language_model, language_model.base_model_prefix).state_dict(), llm)
        _fill(model.lm_head, language_model.get_output_embeddings().state_dict(), llm)
    return model, statistics


def _fill(module: nn.Module, weights: Weights, where: str) -> None:
    own = module.state_dict()
    check_names(set(weights), set(own), where)
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(f"{where}: {wrong[0]} is {tuple(weights[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}")
    module.load_state_dict(weights)


def _language_model(llm: str) -> tuple[PreTrainedConfig, nn.Module | None]:
    path = Path(llm)
    if path.suffix == ".json":
        facts = read_json(path)
        if "model_type" not in facts:
            raise ValueError(f"{path}: names no model_type; expected the config.json of a causal language model")
        return AutoConfig.for_model(**facts), None
    where = {"pretrained_model_name_or_path": str(path)}
    if path.suffix == ".gguf":
        where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    elif not (path / "config.json").is_file():
        raise FileNotFoundError(f"{llm}: --llm expects a causal language model's folder, a .gguf file or a config.json")
    elif not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        return AutoConfig.from_pretrained(path), None
    try:
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except ImportError as error:
        raise ValueError(
            f"{llm}: reading it needs a package that is missing ({str(error).split('.')[0].strip()})"
        ) from None
    config = model.config
    if hasattr(config, "quantization_config"):  # a GGUF file is dequantised as it is read
        del config.quantization_config
    return config, model


def _vision_encoder(
    vision: str, image_size: int | None, drop_path_rate: float
) -> tuple[PreTrainedConfig, Weights, dict]:
    imagenet = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    path = Path(vision)
    if path.suffix == ".json":
        facts = read_json(path)
        if facts.get("model_type", VIT) != VIT:
            raise ValueError(f"{path}: model_type '{facts['model_type']}'; expected InternVLVisionModel's config.json")
        return AutoConfig.for_model(**{"model_type": VIT, **facts}), {}, imagenet
    if path.is_dir():
        vit = read_vit(path)
        return vit.config, vit.weights, {"image_mean": vit.image_mean, "image_std": vit.image_std}
    return _timm_encoder(vision, image_size, drop_path_rate)


def _timm_encoder(name: str, image_size: int | None, drop_path_rate: float) -> tuple[PreTrainedConfig, Weights, dict]:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(f"--vision_config: {unknown_name(name, timm.list_models(), 'file, folder or timm model')}")
    arguments = {"drop_path_rate": drop_path_rate} | ({"img_size": image_size} if image_size else {})
    try:
        try:
            backbone = timm.create_model(name, pretrained=bool(tag), num_classes=0, **arguments)
        except TypeError:  # a convolutional network takes images of any size
            arguments.pop("img_size", None)
            backbone = timm.create_model(name, pretrained=bool(tag), num_classes=0, **arguments)
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--vision_config {name}: cannot be had ({reason}); without the tag it begins at random"
        ) from None
    data = resolve_model_data_config(backbone)
    size = image_size or data["input_size"][-1]
    with torch.no_grad():
        features = backbone.eval().forward_features(torch.zeros(1, 3, size, size))
    count, width = split_tokens(backbone, features).patches.shape[1:]
    side = round(count**0.5)
    config = TimmWrapperConfig(architecture=architecture, do_pooling=False, model_args=arguments)
    config.hidden_size, config.image_size, config.patch_size = width, [size, size], [size // side, size // side]
    weights = {f"timm_model.{key}": value for key, value in backbone.state_dict().items()} if tag else {}
    return config, weights, {"image_mean": list(data["mean"]), "image_std": list(data["std"])}
