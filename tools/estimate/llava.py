"""Fine-tuning step of LLaVA, for `python tools/estimate/estimate.py llava`.

Config and processor are read, weights are not. Every sample has one image of 1024 x 768 pixels, which matters for
models that cut it into tiles, and as much text as max_length leaves room for, or --text_tokens.
"""

from typing import Any, cast

from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText

from common.text.chat_labels import IGNORED, LabelledTokens
from common.text.conversations import Conversation
from common.training.hf_arguments import build_arguments
from llava.arguments import RunArguments
from llava.checkpoint import NUMBER_FORMATS
from llava.config import FineTuning, read_values
from llava.dataset import ConversationCollator, TokenizedConversation
from llava.model import prepare_for_training
from llava.processor import load_processor, read_config
from llava.style_tower import StyleTowerConfig
from llava.tokens import placeholder_id
from tools.estimate.training_step import Batch, TrainingStep, trainer_options

PHOTO = (1024, 768)  # pixels


def training_step(argv: list[str], world: int = 1, text_tokens: int = 0) -> TrainingStep:
    """argv: flags of llava/train.py. text_tokens: of a sample, all with labels; 0: as many as fit."""
    tuning, training = build_arguments((FineTuning, RunArguments), read_values([*argv, "--use_cpu", "true"]))
    if tuning.bits != 16:
        raise ValueError(
            f"--bits {tuning.bits}: only 16 bits can be estimated; quantised weights take bits / 8 bytes each and more"
        )
    config = read_config(tuning.model_id)
    if tuning.style_encoder or isinstance(getattr(config, "vision_config", None), StyleTowerConfig):
        raise ValueError("--style_encoder: is not estimated, it adds a token or a few; give the model without it")
    processor = load_processor(tuning.model_id, config)
    room = tuning.max_length - _example(processor, 0)["input_ids"].shape[1]
    if room < 1:
        raise ValueError(f"--max_length {tuning.max_length}: an image's tokens leave no room for words")
    words = min(text_tokens or room, room)
    example = _example(processor, words)

    def build(precision: str, checkpointing: bool) -> nn.Module:
        frozen_base = tuning.lora_rank and not tuning.freeze_language_model
        model = AutoModelForImageTextToText.from_config(
            config,
            dtype=NUMBER_FORMATS[precision if frozen_base else "fp32"],
            attn_implementation="sdpa" if tuning.attention == "auto" else tuning.attention,
        )
        model = prepare_for_training(
            model,
            tuning.lora_rank,
            tuning.lora_alpha,
            tuning.lora_dropout,
            tuning.train_vision_tower,
            tuning.freeze_language_model,
        )
        if checkpointing:
            cast(Any, model).activation_checkpointing_enable(training.activation_checkpointing_kwargs)
        return model.train()

    def batch(samples: int) -> Batch:
        parts = {name: value.to("meta") if value.is_floating_point() else value for name, value in example.items()}
        inputs = {name: value.repeat(samples, *[1] * (value.ndim - 1)) for name, value in parts.items()}
        if words > 1:  # samples of equal length are rare, and padding needs a mask
            inputs["attention_mask"][1:, -1], inputs["labels"][1:, -1] = 0, IGNORED
        return inputs

    description = f"{tuning.model_id}, {example['input_ids'].shape[1] - words} + {words} tokens"
    return TrainingStep(build=build, batch=batch, description=description, **trainer_options(training))


def _example(processor: Any, words: int) -> Batch:
    """A batch of one sample: an image, then words that all have labels."""
    word = processor.tokenizer.convert_tokens_to_ids(processor.tokenizer.tokenize("a"))[0]
    tokens = LabelledTokens([placeholder_id(processor), *[word] * words], [IGNORED, *[word] * words])
    return ConversationCollator(processor)(
        [(TokenizedConversation(Conversation(()), tokens), [Image.new("RGB", PHOTO)])]
    )
