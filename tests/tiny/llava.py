"""LLaVA: models in the folder layouts of the real ones, made in no time; pictures, conversations, flags of a run."""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from conftest import flags
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from llava.config import PROMPTS
from llava.model import CHAT_TEMPLATE, build_llava, build_tokenizer, small_language, small_vision
from llava.timm_tower import TimmTowerConfig

WORDS = [*PROMPTS["en"].values(), "USER: ASSISTANT: Score: 10 Analysis: It fits. a red star on a beach Yes No"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] if part['type'] == 'image' %}<IMG_CONTEXT>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def lively(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Larger random weights: with the usual ones all tokens are about as probable, and rounding would decide."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 1.5 / parameter.shape[-1] ** 0.5
    return model.eval()


def write_llava(folder: Path, seed: int = 0, width: int = 32, layers: int = 2) -> Path:
    tokenizer = build_tokenizer(WORDS, 500)
    model, processor = build_llava(tokenizer, small_vision(32, 8, 32, 3), small_language(tokenizer, width, layers))
    return _write(folder, lively(model, seed), processor)


def write_timm_llava(folder: Path) -> Path:
    """A convolutional tower: no class token, no attention."""
    tokenizer = build_tokenizer(WORDS, 500)
    width = timm.create_model("test_efficientnet", num_classes=0).num_features
    tower = TimmTowerConfig(architecture="test_efficientnet", image_size=64, patch_size=32, hidden_size=width)
    model, processor = build_llava(tokenizer, tower, small_language(tokenizer, 32, 2))
    return _write(folder, lively(model), processor)


def write_llava_next(folder: Path) -> Path:
    """Images of other shapes than square give more tokens."""
    tokenizer = build_tokenizer(WORDS, 500)
    model, _ = build_llava(tokenizer, small_vision(32, 8, 32, 3), small_language(tokenizer, 32, 2))
    config = LlavaNextConfig(
        vision_config=model.config.vision_config,
        text_config=model.config.text_config,
        image_token_index=model.config.image_token_index,
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]],
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return _write(folder, lively(LlavaNextForConditionalGeneration(config)), processor)


def write_internvl(folder: Path) -> Path:
    """ChatML, <img> and </img> around an image's tokens, several tiles an image."""
    plain = build_tokenizer(WORDS, 500)
    plain.backend_tokenizer.post_processor = None
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        extra_special_tokens=names,
        additional_special_tokens=["<|im_start|>"],
    )
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[56, 56],
        patch_size=[14, 14],
    )
    language = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
        bos_token_id=None,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=language,
        image_seq_length=4,
        downsample_ratio=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size={"height": 56, "width": 56}, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=CHATML,
    )
    model = lively(InternVLForConditionalGeneration(config))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return _write(folder, model, processor)


def write_sentence_encoder(folder: Path) -> Path:
    plain = build_tokenizer(["a red star on a beach"], 300)
    PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, pad_token="<pad>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=300, **sizes)).save_pretrained(folder)
    return folder


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def write_pictures(folder: Path, count: int = 6) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number, (40 + 12 * (number % 2), 40)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def write_conversations(folder: Path, count: int = 12) -> Path:
    """A .jsonl of short conversations about `count` pictures beside it."""
    rows = [
        {
            "image": name,
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": f"a red star {number}"},
                {"from": "human", "value": "Sure?"},
                {"from": "gpt", "value": "Yes" if number % 2 else "No"},
            ],
        }
        for number, name in enumerate(write_pictures(folder, count))
    ]
    path = folder / "conversations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _write(folder: Path, model, processor) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


WRITERS = {"llava": write_llava, "llava_next": write_llava_next, "internvl": write_internvl}


def llava_flags(model: Path, data: Path, output: Path) -> list[str]:
    """Flags of a tiny run, but for its length."""
    lora = flags(lora_rank=4, lora_alpha=8, lora_dropout=0)
    quiet = flags(use_cpu=True, disable_tqdm="true", report_to="none")
    steps = flags(per_device_train_batch_size=4, val_split=0.2, logging_steps=1, save_steps=1, warmup_steps=0)
    folders = flags(output_dir=output, logging_dir=output / "logs", cache_dir=output / "cache")
    return [*flags(model_id=model, data=data), *folders, *lora, *steps, *quiet]
