"""Checkpoints: base models with their processors, LoRA adapters, style encoders, and what ties an adapter to its base.

model_id, adapter, device, number format -> LlavaForConditionalGeneration or its like in eval mode, and its processor
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import is_flash_attn_2_available
from typing_extensions import TypedDict

from common.models.checkpoint_file import first_line, weights_digest
from common.models.lora import MODULES, PROJECTOR, STYLE
from common.models.model_folder import fetch_folder, is_hub_name
from common.models.pretrained import load_pretrained
from common.models.weight_files import model_folder, read_weights
from common.text.schema import read_checked
from common.training.device import choose_device, choose_precision
from common.training.trained_on import TRAINED_ON
from llava.processor import CLASS_TOKENS, OTHER_LAYOUT, count_tokens, load_processor, read_config
from llava.style_tower import STYLE_ENCODER, StyleTowerConfig, add_style_encoder
from model import VisionStyleEncoder

NUMBER_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "no": torch.float32}
ADAPTER_CONFIG = "adapter_config.json"  # of peft
SETTINGS = "settings.json"  # in the folder of a fine-tuning run


class AdapterConfig(TypedDict):
    """adapter_config.json."""

    base_model_name_or_path: str


class TrainedOn(TypedDict, total=False):
    """trained_on.json of llava/train.py, and of earlier runs settings.json."""

    fingerprint: str
    model_id: str
    system_prompt: str
    style_encoder: str  # digest of its weights; '': none


class LoadedModel(NamedTuple):
    model: PreTrainedModel
    processor: ProcessorMixin


def load_image_text_model(
    model_id: str,
    adapter: str = "",
    device: str = "auto",
    precision: str = "auto",
    attention: str = "auto",
    bits: int = 16,
    style_encoder: str = "",
) -> LoadedModel:
    """style_encoder: a checkpoint of one, for a model without.

    ValueError names a folder without model or processor, incomplete weights, or an adapter of another model.
    """
    model_id, target = model_folder(model_id), choose_device(device)
    dtype, config = choose_dtype(precision, target), read_config(model_id)
    encoder = open_style_encoder(model_id, config, adapter, style_encoder)
    processor = load_processor(model_id, config)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": choose_attention(attention, target, dtype)}
    quantization = choose_quantization(bits, target, dtype)
    if quantization:
        options |= {"quantization_config": quantization, "device_map": {"": target}}
    model = load_pretrained(AutoModelForImageTextToText, model_id, remedy=OTHER_LAYOUT, **options)
    if not quantization:
        model = model.to(target)
    if encoder:
        add_style_encoder(model, processor, encoder)
        count_tokens(processor, model.config)
    if adapter:
        model = load_adapter(model, adapter)
    return LoadedModel(model.eval(), processor)


def open_style_encoder(
    model_id: str, config: PreTrainedConfig, adapter: str = "", checkpoint: str = ""
) -> VisionStyleEncoder | None:
    """The style encoder in the folder of a model or of its adapter, or that of a checkpoint; None: there is none."""
    vision = getattr(config, "vision_config", None)
    source = Path(checkpoint)
    if isinstance(vision, StyleTowerConfig):
        if checkpoint:
            raise ValueError(f"--style_encoder {checkpoint}: {model_id} has a style encoder already")
        files = (f"{STYLE_ENCODER}/*",)
        source = (fetch_folder(model_id, files) if is_hub_name(model_id) else Path(model_id)) / STYLE_ENCODER
    elif adapter and ((Path(adapter) / STYLE_ENCODER).is_dir() or read_trained_on(adapter).get("style_encoder")):
        source = Path(adapter) / STYLE_ENCODER
    elif not checkpoint:
        return None
    elif config.model_type != "llava" or vision.model_type not in CLASS_TOKENS:
        raise ValueError(
            f"--style_encoder: works for models of type llava with one of the towers {', '.join(CLASS_TOKENS)}; "
            f"{model_id} is {config.model_type} with {getattr(vision, 'model_type', 'another')}"
        )
    return VisionStyleEncoder.from_pretrained(source)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """auto: fp32 on a CPU, where half formats are mostly emulated; on a GPU bf16 if it is supported, else fp16."""
    if precision == "auto" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return NUMBER_FORMATS[choose_precision(precision, device)]  # "no": accelerate's name for fp32


def choose_attention(attention: str, device: torch.device, dtype: torch.dtype) -> str:
    if attention != "auto":
        return attention
    flash = device.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def choose_quantization(bits: int, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if bits == 16:
        return None
    if bits not in (4, 8):
        raise ValueError(f"--bits {bits}: expected 4 or 8, or 16 for unquantised weights")
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"--bits {bits}: needs a GPU and `pip install bitsandbytes`; 16 works everywhere")
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[*MODULES[PROJECTOR], *MODULES[STYLE], "lm_head"],
    )


def load_adapter(model: PreTrainedModel, adapter: str | Path) -> PeftModel:
    """Put a LoRA adapter, and the projector saved with it, onto its model. ValueError for another model's adapter."""
    folder = Path(adapter)
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ValueError(f"{adapter}: holds no {ADAPTER_CONFIG}; expected a folder that llava/train.py wrote")
    mismatch = f"{adapter}: is an adapter for another model than {model.config._name_or_path}"
    base = read_trained_on(folder)
    known = "" if getattr(model, "is_quantized", False) else base.get("fingerprint")  # '' too if it was quantised then
    if known and known != fingerprint(model):
        raise ValueError(f"{mismatch}: it was trained on {base.get('model_id')}, which has other weights")
    saved = read_weights(folder / "adapter_model.safetensors")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{mismatch} ({first_line(error)})") from None
    if differing := saved.keys() ^ get_peft_model_state_dict(adapted).keys():
        raise ValueError(f"{mismatch}: {len(differing)} tensors are not in both, the first: {min(differing)}")
    return adapted


def read_trained_on(folder: str | Path) -> TrainedOn:
    """trained_on.json of an adapter or model; empty where there is none."""
    path = Path(folder) / TRAINED_ON
    return read_checked(path, TrainedOn) if path.is_file() else {}


def base_and_adapter(model_id: str) -> tuple[str, str]:
    """The folder of an adapter -> the base model that it names, the folder; of a model -> itself, ''."""
    folder = Path(model_id)
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        return model_id, ""
    return read_checked(folder / ADAPTER_CONFIG, AdapterConfig)["base_model_name_or_path"], model_id


def trained_system_prompt(folder: str) -> str:
    """The --system_prompt with which llava/train.py wrote the model or adapter of a folder; auto if unknown."""
    path = Path(folder)
    # Before trained_on.json held it, settings.json did, in the run's folder alone.
    earlier = (path.parent if path.name.startswith("checkpoint-") else path) / SETTINGS
    for file in (path / TRAINED_ON, earlier):
        if file.is_file() and "system_prompt" in (content := read_checked(file, TrainedOn)):
            return content["system_prompt"]
    return "auto"


def fingerprint(model: torch.nn.Module) -> str:
    """Digest of the weights, the same in every number format that they are loaded in."""
    return weights_digest(model.state_dict(), sampled=True)


def end_token_ids(model: PreTrainedModel) -> list[int]:
    """Ids of the tokens that end an answer."""
    ids = model.generation_config.eos_token_id
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def end_tokens(loaded: LoadedModel) -> list[str]:
    """Texts of the tokens that end an answer, the tokenizer's own first."""
    tokenizer = loaded.processor.tokenizer
    ids = [tokenizer.eos_token_id, *end_token_ids(loaded.model)]
    return list(dict.fromkeys(tokenizer.convert_ids_to_tokens(token) for token in ids if token is not None))
