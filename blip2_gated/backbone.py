"""Where does the BLIP-2 inside come from? A published one, a folder, or one built from parts without any download.

name or folder with weights   -> Blip2ForConditionalGeneration, tokenizer
config (JSON file or 'small') -> the same from scratch, with a byte-pair tokenizer trained on the texts to be learnt
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

PAD, END, IMAGE = "<pad>", "</s>", "<image>"  # as OPT has them: one token both begins and ends a text
# Deviations of 1 / sqrt(width), and no dropout: at the library's 0.02, right for widths of thousands, the image is a
# fiftieth of what the queries say at the start, dropout drowns it, and a small model learns to do without the image.
SMALL: dict[str, Any] = {  # minutes on a CPU
    "vision_config": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": 64,
        "patch_size": 16,
    },
    "qformer_config": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "cross_attention_frequency": 2,
        "initializer_range": 0.07,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "text_config": {
        "model_type": "opt",
        "vocab_size": 1000,
        "hidden_size": 192,
        "word_embed_proj_dim": 192,
        "ffn_dim": 768,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": 128,
        "init_std": 0.07,
        "dropout": 0.0,
    },
    "num_query_tokens": 8,
}
SHAPES = {"small": SMALL}


def is_config(source: str) -> bool:
    """Built from scratch, in place of read with its weights."""
    return source in SHAPES or (source.endswith(".json") and Path(source).is_file())


def read_config(source: str) -> dict[str, Any]:
    """'small', or a JSON file of Blip2Config -> plain values."""
    if source in SHAPES:
        return SHAPES[source]
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: cannot be read as a JSON config of BLIP-2 ({error})") from None


def fit_config(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The config with this tokenizer's vocabulary and special tokens in it."""
    text = config["text_config"]
    if len(tokenizer) > text.get("vocab_size", len(tokenizer)):
        raise ValueError(f"a vocabulary of {len(tokenizer)} tokens; BLIP-2's config has room for {text['vocab_size']}")
    own = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {**config, "text_config": {**text, **own}, "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE)}


def build_blip2(config: dict[str, Any]) -> Blip2ForConditionalGeneration:
    """From scratch.

    The library's defaults are for loading weights over them: its vision tower begins with a deviation of 1e-10 and its
    queries at zero, all alike, so that nothing would ever tell one from another. Here they begin as in BLIP-2's own
    code: normal, with the Q-Former's deviation, 0.02 unless its config says otherwise.
    """
    blip2 = Blip2Config(**json.loads(json.dumps(config)))
    deviation = blip2.qformer_config.initializer_range
    blip2.vision_config.initializer_range = deviation
    model = Blip2ForConditionalGeneration(blip2)
    torch.nn.init.normal_(model.query_tokens, std=deviation)
    return model


def read_blip2(source: str) -> tuple[Blip2ForConditionalGeneration, PreTrainedTokenizerBase]:
    """A hub name or a folder, in the number format of its files."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = Blip2ForConditionalGeneration.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"--model.blip2 {source}: cannot be had ({str(error).strip().splitlines()[0]}); expected a hub name while "
            "connected, a folder of save_pretrained with its tokenizer, a JSON config, or 'small'"
        ) from error
    if model.config.text_config.model_type != "opt":
        raise ValueError(
            f"--model.blip2 {source}: its language model is {model.config.text_config.model_type}, not OPT"
        )
    if model.config.image_token_index is None:
        if IMAGE not in tokenizer.get_vocab():
            raise ValueError(f"--model.blip2 {source}: neither its config nor its tokenizer knows an image token")
        model.config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE)
    return model, tokenizer


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding with OPT's conventions, learnt from `texts`: nothing is downloaded, and no text is unknown."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, IMAGE],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(sorted(set(texts)), trainer)
    return tokenizer_from(backend.to_str())


def tokenizer_from(text: str) -> PreTrainedTokenizerFast:
    """The JSON of a tokenizer, as a checkpoint holds it -> the tokenizer; a text begins with END."""
    backend = Tokenizer.from_str(text)
    if backend.post_processor is None:
        begin = (END, backend.token_to_id(END))
        backend.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, bos_token=END, eos_token=END, extra_special_tokens=[IMAGE]
    )
