"""LLaVA models from parts, in the layout of llava-hf/llava-1.5, and their trainable parts.

texts -> byte-level BPE tokenizer -> LlavaForConditionalGeneration (CLIP ViT, projector, Llama), LlavaProcessor
"""

from collections.abc import Iterable

import torch
from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from common.models.lora import LANGUAGE, PROJECTOR, STYLE, VISION, Lora, set_trainable
from common.models.tokenizer import train_tokenizer
from llava.style_tower import find_style_encoder

IMAGE_TOKEN = "<image>"
# LLaVA 1.5's format: "USER: <image>\nquestion ASSISTANT: answer</s>USER: ..."
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def prepare_for_training(
    model: PreTrainedModel, rank: int, alpha: int, dropout: float, train_vision_tower: bool, freeze_language_model: bool
) -> nn.Module:
    """-> the model, or a PeftModel around it. The projector and the linear maps of a style encoder are always trained.

    rank 0: no LoRA, the whole language model is trained unless it is frozen.
    """
    lora = rank > 0 and not freeze_language_model
    if getattr(model, "is_quantized", False):
        if not lora:
            raise ValueError("--bits 4 and 8 freeze the language model's weights; give --lora_rank above 0")
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    parts = {
        LANGUAGE: Lora(rank, alpha) if lora else not freeze_language_model,
        PROJECTOR: True,
        VISION: train_vision_tower,
    }
    if find_style_encoder(model):
        parts[STYLE] = True
    return set_trainable(model, parts, dropout, task_type="CAUSAL_LM")


def build_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE with Llama's special tokens and single digits, and the image token."""
    return train_tokenizer(texts, vocab_size, "<pad>", "</s>", "<s>", {"image_token": IMAGE_TOKEN}, single_digits=True)


def build_llava(
    tokenizer: PreTrainedTokenizerBase,
    vision: PreTrainedConfig,
    language: LlamaConfig,
    chat_template: str = CHAT_TEMPLATE,
    projector_act: str = "gelu",
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Random weights, fp32; pretrained parts can then be loaded into model.model.vision_tower and language_model.

    Images become squares of the tower's size without a crop, which would hide what a text mentions.
    """
    class_token = isinstance(vision, CLIPVisionConfig)
    strategy = "default" if class_token else "full"
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2 if class_token else -1,
        vision_feature_select_strategy=strategy,
        projector_hidden_act=projector_act,
        tie_word_embeddings=bool(language.tie_word_embeddings),
    )
    model = LlavaForConditionalGeneration(config)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    size = {"height": vision.image_size, "width": vision.image_size}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        num_additional_image_tokens=int(class_token),
        chat_template=chat_template,
        vision_feature_select_strategy=strategy,
    )
    return model.to(torch.float32), processor


def small_vision(image_size: int = 64, patch_size: int = 16, width: int = 128, layers: int = 4) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        image_size=image_size,
        patch_size=patch_size,
    )


def small_language(tokenizer: PreTrainedTokenizerBase, width: int = 128, layers: int = 4) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        num_key_value_heads=max(1, width // 32),
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=width**-0.5,  # the usual 0.02 suits widths of thousands; here images would have little effect
    )
