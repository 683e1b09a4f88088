"""Tokenizers of CLIP's text tower (byte-pair encoding) and of Hugging Face text towers.

texts (list of str) -> token lists without padding -> common.text.padding.pad -> tokens (B, T), T = the longest text

CLIP's text tower is causal, so padding behind the end token changes nothing and need not be computed; the same holds
for encoders with a padding mask. Short captions then cost a fraction of 77 tokens.
"""

from pathlib import Path
from typing import Any

from open_clip.tokenizer import _tokenizer as BYTE_PAIR_ENCODING
from tokenizers import Tokenizer as BackendTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.models.checkpoint_file import first_line


class CLIPTokenizer:
    """Byte-pair encoding of CLIP; the vocabulary comes with open_clip."""

    pad_id = 0

    def __init__(self, context_length: int = 77):
        self.context_length = context_length

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """-> tokens of each text with start and end, at most context_length; number of truncated texts."""
        bpe, limit = BYTE_PAIR_ENCODING, self.context_length - 2
        words = [bpe.encode(text) for text in texts]
        rows = [[bpe.sot_token_id, *tokens[:limit], bpe.eot_token_id] for tokens in words]
        return rows, sum(len(tokens) > limit for tokens in words)


class HuggingFaceTokenizer:
    """Any fast tokenizer of transformers, for a Hugging Face text tower."""

    def __init__(self, backend: str, context_length: int, pad_id: int):
        """backend: the content of tokenizer.json."""
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=BackendTokenizer.from_str(backend))
        self.context_length, self.pad_id = context_length, pad_id

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        options = {"return_attention_mask": False, "verbose": False}
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.context_length, **options).input_ids
        full = self.tokenizer(list(texts), truncation=False, **options).input_ids
        return rows, sum(len(row) > self.context_length for row in full)


Tokenizer = CLIPTokenizer | HuggingFaceTokenizer


def build_tokenizer(config: dict[str, Any]) -> Tokenizer:
    """config: {"kind": "clip", "context_length"}, or of huggingface_tokenizer_config."""
    if config["kind"] == "clip":
        return CLIPTokenizer(config["context_length"])
    return HuggingFaceTokenizer(config["tokenizer_json"], config["context_length"], config["pad_id"])


def huggingface_tokenizer_config(name: str | Path, context_length: int, pad_id: int) -> dict[str, Any]:
    """The tokenizer of a Hugging Face name or folder as plain values."""
    try:
        backend = AutoTokenizer.from_pretrained(name).backend_tokenizer.to_str()
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"--text_tower {name}: no fast tokenizer can be read from it ({first_line(error)})") from error
    return {"kind": "huggingface", "context_length": context_length, "pad_id": pad_id, "tokenizer_json": backend}
