"""The BLIP-2 inside: pretrained, from the Hub or a folder, or built from a config without any download.

name or folder with weights   -> Blip2ForConditionalGeneration, tokenizer
config (JSON file or 'small') -> the same from scratch, with a byte-pair tokenizer trained on the training texts
"""

import json
from pathlib import Path
from typing import Any, Required

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from typing_extensions import TypedDict

from common.models.build_arguments import check_plain
from common.models.checkpoint_file import first_line
from common.models.pretrained import LOAD_ERRORS, load_pretrained
from common.models.tokenizer import train_tokenizer
from common.models.weight_files import model_folder
from common.text.schema import read_checked

EXPECTED = (
    "expected a hub name (with a network connection), a folder of save_pretrained with its tokenizer, a JSON config, "
    "or 'small'"
)
PAD, END, IMAGE = "<pad>", "</s>", "<image>"  # as in OPT: one token both begins and ends a text
# Initial deviations of 1 / sqrt(width), and no dropout. At the library's 0.02, meant for widths of thousands, the image
# is a fiftieth of the query output at the start, dropout drowns it, and a small model learns to ignore the image.
SMALL: dict[str, Any] = {  # trains in minutes on a CPU
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
CONFIGS = {"small": SMALL}


class Blip2Settings(TypedDict, total=False):
    """A JSON file of Blip2Config."""

    vision_config: dict[str, Any]
    qformer_config: dict[str, Any]
    text_config: Required[dict[str, Any]]
    num_query_tokens: int


def is_config(source: str) -> bool:
    """Whether `source` is a config to build from scratch, not a model with weights."""
    return source in CONFIGS or (source.endswith(".json") and Path(source).is_file())


def read_config(source: str) -> dict[str, Any]:
    """'small', or a JSON file of Blip2Config -> plain values."""
    if source in CONFIGS:
        return CONFIGS[source]
    config: dict[str, Any] = dict(read_checked(source, Blip2Settings, "--model.blip2"))
    check_plain(config, source)
    return config


def fit_config(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The config with this tokenizer's vocabulary size and special tokens."""
    text = config["text_config"]
    if len(tokenizer) > text.get("vocab_size", len(tokenizer)):
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens; the BLIP-2 config allows {text['vocab_size']}")
    return {
        **config,
        "text_config": {
            **text,
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
    }


def build_blip2(config: dict[str, Any]) -> Blip2ForConditionalGeneration:
    """BLIP-2 with random weights.

    The library's defaults assume that weights are loaded over them: its vision tower starts with a deviation of 1e-10
    and its queries at zero, so that they would stay identical. Here they are initialised as in BLIP-2's own code:
    normal, with the Q-Former's deviation, 0.02 unless its config says otherwise.
    """
    blip2 = Blip2Config(**json.loads(json.dumps(config)))
    deviation = blip2.qformer_config.initializer_range
    blip2.vision_config.initializer_range = deviation
    model = Blip2ForConditionalGeneration(blip2)
    torch.nn.init.normal_(model.query_tokens, std=deviation)
    return model


def read_blip2(source: str) -> tuple[Blip2ForConditionalGeneration, PreTrainedTokenizerBase]:
    """A pretrained BLIP-2-OPT by hub name or folder, in the dtype of its files. ValueError if it is not complete."""
    config, tokenizer = read_blip2_config(source)
    model = load_pretrained(
        Blip2ForConditionalGeneration, config.name_or_path, label=f"--model.blip2 {source}", remedy=EXPECTED
    )
    model.config.image_token_index = config.image_token_index
    return model, tokenizer


def read_blip2_config(source: str) -> tuple[Blip2Config, PreTrainedTokenizerBase]:
    """Config and tokenizer of a pretrained BLIP-2-OPT, with an id for the image's places.

    Revisions before transformers 4.46 have none: the tokenizer then gets the token, with the first free id, which is
    that of the later revisions.
    """
    folder, label = model_folder(source), f"--model.blip2 {source}"
    if Path(folder).is_file():
        raise ValueError(
            f"{label}: is a single file; a checkpoint of LAVIS becomes a folder by "
            f"python tools/convert_lavis.py {source} --base Salesforce/blip2-opt-2.7b --output_dir FOLDER"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ValueError(f"{label}: cannot be loaded ({first_line(error)}); {EXPECTED}") from error
    if not isinstance(config, Blip2Config):
        raise ValueError(f"{label}: is a {config.model_type}, not a BLIP-2")
    if config.text_config.model_type != "opt":
        raise ValueError(f"{label}: its language model is {config.text_config.model_type}, not OPT")
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([IMAGE], special_tokens=True)
    config.image_token_index = tokenizer.convert_tokens_to_ids(IMAGE)
    return config, tokenizer


def make_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer with OPT's conventions, trained on `texts`."""
    return train_tokenizer(sorted(set(texts)), vocab_size, PAD, END, END, [IMAGE])


def tokenizer_from_json(text: str) -> PreTrainedTokenizerFast:
    """The JSON of a fast tokenizer, as a checkpoint holds it -> the tokenizer."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        pad_token=PAD,
        bos_token=END,
        eos_token=END,
        extra_special_tokens=[IMAGE],
    )
