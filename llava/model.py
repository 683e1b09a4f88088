"""A small LLaVA from nothing, in the very layout of llava-hf/llava-1.5: for the demo, for tests, around other parts.

texts -> byte-level BPE tokenizer -> LlavaForConditionalGeneration (CLIP ViT, projector, Llama), LlavaProcessor
"""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

IMAGE_TOKEN = "<image>"
# As LLaVA 1.5 speaks: "USER: <image>\nquestion ASSISTANT: answer</s>USER: ..."
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from `texts`: every text can be written; digits stay single, as in Llama's tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", IMAGE_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # every text begins with <s>, as Llama's do
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
    )


CHATML_TEMPLATE = (  # as SmolLM2, Qwen and InternVL speak
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_processor(
    tokenizer: PreTrainedTokenizerBase, vision: PreTrainedConfig, chat_template: str = CHAT_TEMPLATE
) -> LlavaProcessor:
    """Squares of the tower's size, whole: nothing is cut off, which would hide what a text names."""
    side = vision.image_size
    images = CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False)
    class_token = isinstance(vision, CLIPVisionConfig)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        num_additional_image_tokens=int(class_token),
        chat_template=chat_template,
        vision_feature_select_strategy="default" if class_token else "full",
    )


def build_llava(
    tokenizer: PreTrainedTokenizerBase,
    vision: PreTrainedConfig,
    language: LlamaConfig,
    chat_template: str = CHAT_TEMPLATE,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Random weights, fp32; those of given parts are then loaded into model.model.vision_tower and language_model."""
    class_token = isinstance(vision, CLIPVisionConfig)
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=-2 if class_token else -1,
        vision_feature_select_strategy="default" if class_token else "full",
        tie_word_embeddings=bool(language.tie_word_embeddings),
    )
    model = LlavaForConditionalGeneration(config)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    return model.to(torch.float32), build_processor(tokenizer, vision, chat_template)


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
    heads = max(1, width // 32)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=width**-0.5,  # 0.02 is made for widths of thousands; here images would hardly be heard
    )
