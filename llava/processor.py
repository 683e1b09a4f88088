"""Processors of image-text models, from today's folders and from older revisions.

name or folder -> config -> processor: images to pixels, an image to its number of tokens, turns to a prompt

Older folders lack patch_size, num_additional_image_tokens, vision_feature_select_strategy, the chat template or the
token <image>. What the model's config says replaces what a processor holds: it decides how many features there are.
"""

import sys
from pathlib import Path

from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, ProcessorMixin

from common.models.checkpoint_file import first_line
from common.models.pretrained import LOAD_ERRORS
from llava import timm_tower  # noqa: F401  registers the tower with transformers
from llava.families import check_family
from llava.model import CHAT_TEMPLATE
from llava.style_tower import StyleTowerConfig

OTHER_LAYOUT = "weights of haotian-liu/LLaVA are here as llava-hf/llava-1.5-7b-hf and its like"
PROCESSOR_PARTS = ("image_processor", "tokenizer", "chat_template", "image_token")
# What a tower returns besides its patches.
CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "timm_tower": 0}
VICUNA_MODELS = ("llama", "mistral")  # language models of LLaVA 1.5 and BakLLaVA
OTHER_CHATS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>")  # tokens of other chat templates


def read_config(model_id: str) -> PreTrainedConfig:
    """ValueError for what is not a transformers model, original LLaVA weights among them."""
    if Path(model_id).is_dir() and not (Path(model_id) / "config.json").is_file():
        raise ValueError(f"{model_id}: holds no config.json; expected the folder of a transformers model")
    try:
        config = AutoConfig.from_pretrained(model_id, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ValueError(f"{model_id}: its config cannot be loaded ({first_line(error)}); {OTHER_LAYOUT}") from None
    if hasattr(config, "mm_vision_tower"):
        raise ValueError(f"{model_id}: is in the layout of the original repository; {OTHER_LAYOUT}")
    check_family(model_id, config)
    return config


def load_processor(model_id: str, config: PreTrainedConfig) -> ProcessorMixin:
    """config: of the model, which completes the processor of an older folder."""
    try:
        processor = AutoProcessor.from_pretrained(model_id, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ValueError(
            f"{model_id}: its processor cannot be loaded ({first_line(error)}); expected the name or the folder of a "
            f"transformers model with processor_config.json and tokenizer files ({OTHER_LAYOUT})"
        ) from None
    if isinstance(processor, ProcessorMixin):  # AutoProcessor falls back to a tokenizer alone
        count_tokens(processor, config)
        _add_chat_template(processor, config, model_id)
        if not processor.chat_template:
            processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    if missing := [part for part in PROCESSOR_PARTS if not getattr(processor, part, None)]:
        raise ValueError(
            f"{model_id}: its processor is incomplete, {' and '.join(missing)} missing; copy processor_config.json, "
            "chat_template.jinja and the tokenizer files of the original model into the folder"
        )
    if getattr(processor.image_processor, "do_pan_and_scan", False):  # the text around an image would vary
        raise ValueError(f"{model_id}: its processor crops images (do_pan_and_scan); set that to false in its folder")
    if _is_llava(processor):
        _add_image_token(processor, config, model_id)
    elif processor.image_token not in processor.tokenizer.get_vocab():  # Aya Vision's is only a word of its template
        processor.tokenizer.add_tokens([processor.image_token], special_tokens=True)
    return processor


def _is_llava(processor: ProcessorMixin) -> bool:
    """LLaVA, LLaVA-NeXT, LLaVA-OneVision and their like."""
    return hasattr(processor, "vision_feature_select_strategy")


def count_tokens(processor: ProcessorMixin, config: PreTrainedConfig) -> None:
    """Make a processor count as many tokens for an image as the model returns features."""
    if not _is_llava(processor):
        return
    vision = config.vision_config
    processor.vision_feature_select_strategy = getattr(config, "vision_feature_select_strategy", "default")
    if hasattr(processor, "num_additional_image_tokens"):
        processor.patch_size = vision.patch_size
        tower, style_tokens = vision, 0
        if isinstance(vision, StyleTowerConfig):
            tower, style_tokens = vision.tower, vision.style_tokens
        class_tokens = CLASS_TOKENS.get(tower.model_type, processor.num_additional_image_tokens)
        processor.num_additional_image_tokens = (class_tokens or 0) + style_tokens
    elif getattr(processor, "num_image_tokens", 0) is None:  # LLaVA-OneVision
        processor.num_image_tokens = (vision.image_size // vision.patch_size) ** 2


def _add_chat_template(processor: ProcessorMixin, config: PreTrainedConfig, model_id: str) -> None:
    """LLaVA 1.5's own, where a folder of it was written before processors had one. Other models have other ones."""
    tokenizer = processor.tokenizer
    if processor.chat_template or tokenizer.chat_template or config.model_type != "llava":
        return
    if config.text_config.model_type in VICUNA_MODELS and not any(word in tokenizer.vocab for word in OTHER_CHATS):
        processor.chat_template = CHAT_TEMPLATE
        print(f"{model_id}: has no chat template; using LLaVA 1.5's (USER: ... ASSISTANT:)", file=sys.stderr)


def _add_image_token(processor: ProcessorMixin, config: PreTrainedConfig, model_id: str) -> None:
    """One token for the image's places, with the id that the model looks for."""
    tokenizer, token = processor.tokenizer, processor.image_token
    if token not in tokenizer.vocab and len(tokenizer) == config.image_token_id:
        tokenizer.add_tokens([token], special_tokens=True)
    processor.image_token_id = tokenizer.vocab.get(token)
    if processor.image_token_id != config.image_token_id:
        raise ValueError(
            f"{model_id}: {token} is token {processor.image_token_id} of its tokenizer and {config.image_token_id} of "
            "its config.json; copy both from the same revision of the original model"
        )
