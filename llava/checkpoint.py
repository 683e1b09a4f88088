"""A name or a folder to a model that can look and speak, and the processor that belongs to it.

model_id, adapter, device, number format -> LlavaForConditionalGeneration and its like, eval mode; processor
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, PreTrainedModel, ProcessorMixin
from transformers.utils import is_flash_attn_2_available

from common.text.files import write_json
from common.training.device import choose_device
from llava import timm_tower  # noqa: F401  transformers learns its name

NUMBER_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FACTS = "trained_on.json"  # in an adapter's folder: which model it belongs to
SETTINGS = "settings.json"  # in the folder of a fine-tuning run: what it was told


class LoadedModel(NamedTuple):
    model: PreTrainedModel
    processor: ProcessorMixin


def load_model(
    model_id: str,
    adapter: str = "",
    device: str = "auto",
    precision: str = "auto",
    attention: str = "auto",
    bits: int = 16,
) -> LoadedModel:
    """Ready to generate. ValueError names a folder without model or processor, or an adapter of another model."""
    place = choose_device(device)
    dtype = choose_dtype(precision, place)
    processor = load_processor(model_id)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": choose_attention(attention, place, dtype)}
    if quantisation := choose_quantisation(bits, place, dtype):
        options |= {"quantization_config": quantisation, "device_map": {"": place}}
    try:
        model = AutoModelForImageTextToText.from_pretrained(model_id, **options)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{model_id}: cannot be loaded as an image-text model ({first_line(error)})") from error
    if not quantisation:
        model = model.to(place)
    if adapter:
        model = load_adapter(model, adapter)
    return LoadedModel(model.eval(), processor)


def load_processor(model_id: str) -> ProcessorMixin:
    if Path(model_id).is_dir() and not (Path(model_id) / "config.json").is_file():
        raise ValueError(f"{model_id}: no config.json in it; expected the folder of a transformers model")
    try:
        processor = AutoProcessor.from_pretrained(model_id)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ValueError(
            f"{model_id}: its processor cannot be loaded ({first_line(error)}); expected the name or the folder of a "
            "transformers model with processor_config.json and tokenizer files"
        ) from None
    lacking = [
        part
        for part in ("image_processor", "tokenizer", "chat_template", "image_token")
        if not getattr(processor, part, None)
    ]
    if lacking:  # AutoProcessor falls back to a tokenizer alone
        raise ValueError(
            f"{model_id}: has no complete processor, {' and '.join(lacking)} missing; copy processor_config.json, "
            "chat_template.jinja and the tokenizer files of the original model into it"
        )
    return processor


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """auto: fp32 on a CPU, where half formats are mostly emulated; on a GPU bf16 where it can, else fp16."""
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision not in NUMBER_FORMATS:
        raise ValueError(f"--precision {precision}: expected auto, {', '.join(NUMBER_FORMATS)}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("--precision fp16: needs a GPU; use fp32 or bf16 on a CPU")
    return NUMBER_FORMATS[precision]


def choose_attention(attention: str, device: torch.device, dtype: torch.dtype) -> str:
    if attention != "auto":
        return attention
    flash = device.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def choose_quantisation(bits: int, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if bits == 16:
        return None
    if bits not in (4, 8):
        raise ValueError(f"--bits {bits}: expected 4, 8, or 16 for weights as they are")
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"--bits {bits}: needs a GPU and `pip install bitsandbytes`; 16 works everywhere")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["multi_modal_projector", "lm_head"])
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["multi_modal_projector", "lm_head"],
    )


def load_adapter(model: PreTrainedModel, adapter: str | Path, trainable: bool = False) -> PeftModel:
    """Put a LoRA adapter, and the projector saved with it, onto its model. ValueError for an adapter of another one."""
    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"{adapter}: no adapter_config.json in it; expected a folder that llava/train.py wrote")
    wrong = f"{adapter}: is an adapter for another model than {model.config._name_or_path}"
    facts = folder / FACTS
    if facts.is_file() and not getattr(model, "is_quantized", False):
        known = json.loads(facts.read_text(encoding="utf-8"))
        if known["fingerprint"] != fingerprint(model):
            raise ValueError(f"{wrong}: it was trained on {known['model_id']}, whose weights are not these")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{wrong} ({first_line(error)})") from None
    saved = load_file(folder / "adapter_model.safetensors")
    if differing := saved.keys() ^ get_peft_model_state_dict(adapted).keys():
        raise ValueError(f"{wrong}: {len(differing)} tensors are not in both, the first: {min(differing)}")
    return adapted


def write_adapter_facts(folder: str | Path, model_id: str, print_: str) -> None:
    write_json(Path(folder) / FACTS, {"model_id": model_id, "fingerprint": print_})


def trained_system_prompt(folder: str) -> str:
    """SYSTEM_PROMPT as llava/train.py was given it for the model or adapter in a folder; auto where it is not known."""
    settings = Path(folder) / SETTINGS
    if not settings.is_file():
        return "auto"
    return json.loads(settings.read_text(encoding="utf-8")).get("fine_tuning", {}).get("system_prompt", "auto")


def fingerprint(model: torch.nn.Module) -> str:
    """16 hex digits by which weights are known again, whatever number format they were loaded in.

    Of every tensor its name, its shape and up to 1,024 evenly spaced values, rounded to bf16.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        flat = flat[:: max(1, len(flat) // 1024)][:1024]
        values = flat.to(torch.bfloat16).float().cpu().numpy() if flat.is_floating_point() else flat.cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + values.tobytes())
    return digest.hexdigest()


def stop_words(loaded: LoadedModel) -> list[str]:
    """Texts of the tokens that end an answer, the tokenizer's own first."""
    model, tokenizer = loaded.model, loaded.processor.tokenizer
    ends = model.generation_config.eos_token_id
    ids = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
    return list(dict.fromkeys(tokenizer.convert_ids_to_tokens(one) for one in ids if one is not None))


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
