"""A model of a vision encoder and a language model that were trained apart.

vision: timm name, InternViT folder or config.json  }
llm: causal LM folder, .gguf or config.json         } -> VisualInstructionModel with a new projector
"""

from pathlib import Path

import torch
from timm.data import resolve_model_data_config
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, TimmWrapperConfig

from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD
from common.models.backbone import check_features, create_backbone, resolve_backbone, split_source
from common.models.build_arguments import building
from common.models.checkpoint_file import first_line, load_every_tensor
from common.models.model_config import read_model_config
from common.models.pretrained import LOAD_ERRORS, load_pretrained
from vitp.key_mapping import Weights
from vitp.model import VIT, VisualInstructionConfig, VisualInstructionModel
from vitp.vision_encoder import read_vit

SOURCE = ("pretrained_cfg", "pretrained_model_args", "num_classes")  # of resolve_backbone: not of the architecture
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def build_model(
    vision: str,
    llm: str,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
    down_sample_ratio: float | None = None,
    **loading,
) -> tuple[VisualInstructionModel, dict]:
    """-> model with a new projector, {"image_mean", "image_std"} of its vision encoder

    vision: a timm name (with a tag, 'vit_tiny_patch16_224.augreg_in21k', its weights are downloaded), NAME:FILE of timm
    with the weights of a file, hf-hub:OWNER/NAME or local-dir:FOLDER with its own, or an InternViT: a config.json, a
    folder of that and weights, of a whole model too, or a file of weights alone. llm: a causal language model's folder,
    .gguf file, or config.json. Parts without weights are initialised at random. down_sample_ratio: 1 / k makes one
    token of k x k patches; None: 0.5.
    """
    ratio = 0.5 if down_sample_ratio is None else down_sample_ratio
    if not 0 < ratio <= 1 or abs(round(1 / ratio) * ratio - 1) > 1e-6:
        raise ValueError(f"--down_sample_ratio {ratio:g}: expected 1, 0.5, or another 1 / k of a whole k")
    text_config, language_model = _language_model(llm)
    with torch.device("meta"):
        standard_names = hasattr(AutoModel.from_config(text_config), "embed_tokens")
    # transformers' InternVL ties its head to `embed_tokens`; where embeddings have another name, the head is a copy.
    text_config.tie_word_embeddings = bool(text_config.tie_word_embeddings) and standard_names
    tower_config, tower_weights, statistics = _vision_encoder(vision, image_size, drop_path_rate)
    config = VisualInstructionConfig(
        vision_config=tower_config,
        text_config=text_config,
        downsample_ratio=float(ratio),
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    model = VisualInstructionModel._from_config(config, **loading)
    tower = model.model.vision_tower
    if tower_weights:
        load_every_tensor(tower, tower_weights, vision, "its vision encoder")
    elif hasattr(tower, "embeddings"):  # transformers begins with zeros, where all patches are alike
        nn.init.trunc_normal_(tower.embeddings.position_embeddings, std=0.02)
        nn.init.trunc_normal_(tower.embeddings.cls_token, std=0.02)
    if language_model is not None:
        load_every_tensor(model.model.language_model, language_model.base_model.state_dict(), llm, "its language model")
        load_every_tensor(model.lm_head, language_model.get_output_embeddings().state_dict(), llm, "its head")
    return model, statistics


def _language_model(llm: str) -> tuple[PreTrainedConfig, nn.Module | None]:
    path = Path(llm)
    if path.suffix == ".json":
        settings = read_model_config(path)
        if "model_type" not in settings:
            raise ValueError(f"{path}: names no model_type; expected the config.json of a causal language model")
        with building(path, settings):
            return AutoConfig.for_model(**settings), None
    if path.suffix == ".gguf":
        return _from_gguf(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{llm}: --llm expects a causal language model's folder, a .gguf file or a config.json")
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        try:
            return AutoConfig.from_pretrained(path, trust_remote_code=False), None
        except LOAD_ERRORS as error:
            raise ValueError(f"--llm {llm}: its config cannot be read ({first_line(error)})") from None
    model = load_pretrained(AutoModelForCausalLM, llm, label=f"--llm {llm}", dtype=torch.float32)
    return model.config, model


def _from_gguf(path: Path) -> tuple[PreTrainedConfig, nn.Module]:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    except ImportError as error:
        raise ValueError(f"{path}: reading it needs a missing package ({str(error).split('.')[0].strip()})") from None
    if hasattr(model.config, "quantization_config"):  # the file is dequantised as it is read
        del model.config.quantization_config
    return model.config, model


def _vision_encoder(
    vision: str, image_size: int | None, drop_path_rate: float
) -> tuple[PreTrainedConfig, Weights, dict]:
    path = Path(vision)
    if path.suffix == ".json":
        settings = read_model_config(path)
        if (kind := settings.get("model_type", VIT)) != VIT:
            raise ValueError(f"{path}: model_type '{kind}'; expected the config.json of an InternVLVisionModel")
        with building(path, settings):
            config = AutoConfig.for_model(**{"model_type": VIT, **settings})
        return config, {}, {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    if path.is_dir() or (path.suffix in WEIGHT_SUFFIXES and (path.is_file() or not split_source(vision)[1])):
        vit = read_vit(path)
        return vit.config, vit.weights, {"image_mean": vit.image_mean, "image_std": vit.image_std}
    return _timm_encoder(vision, image_size, drop_path_rate)


def _timm_encoder(vision: str, image_size: int | None, drop_path_rate: float) -> tuple[PreTrainedConfig, Weights, dict]:
    try:
        name, file = split_source(vision)
        # Of a file, of a tag, or of a place; a name alone is initialised at random.
        has_weights: bool | str = file != "random" and (file or "." in name or ":" in name)
        architecture, source = resolve_backbone(name)
        known = {key: value for key, value in source.items() if key not in SOURCE}
        options = known | {"drop_path_rate": drop_path_rate} | ({"img_size": image_size} if image_size else {})
        try:
            backbone = create_backbone(name, has_weights, model_args=options)
        except TypeError:  # a convolutional network takes images of any size
            options.pop("img_size", None)
            backbone = create_backbone(name, has_weights, model_args=options)
        data = resolve_model_data_config(backbone)
        size = image_size or data["input_size"][-1]
        features = check_features(name, backbone.eval(), size)
    except ValueError as error:
        hint = "; without the tag it is initialised at random" if "cannot be loaded" in str(error) else ""
        raise ValueError(f"--vision_config {error}{hint}") from None
    width, patch = features.patches.shape[-1], size // features.grid[0]
    config = TimmWrapperConfig(architecture=architecture, do_pooling=False, model_args=options)
    config.hidden_size, config.image_size, config.patch_size = width, [size, size], [patch, patch]
    weights = {f"timm_model.{key}": value for key, value in backbone.state_dict().items()} if has_weights else {}
    return config, weights, {"image_mean": list(data["mean"]), "image_std": list(data["std"])}
