"""Tokenizers of CLIP's text tower (byte-pair encoding) and of Hugging Face text towers.

texts (list of str) -> token lists without padding -> common.text.padding.pad -> tokens (B, T), T = the longest text

CLIP's text tower is causal, so padding behind the end token changes nothing and need not be computed; the same holds
for encoders with a padding mask. Short captions then cost a fraction of 77 tokens.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import regex
from open_clip.tokenizer import _tokenizer as OPEN_CLIP_TOKENIZER
from open_clip.tokenizer import get_clean_fn
from tokenizers import Tokenizer as BackendTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.models.checkpoint_file import first_line
from common.text.control_words import ControlWords

BYTE_PAIR_ENCODING = copy.copy(OPEN_CLIP_TOKENIZER)
# Without the alternatives that take "<end_of_text>" in a caption for its end, where the text tower reads its vector.
BYTE_PAIR_ENCODING.pat = regex.compile(
    OPEN_CLIP_TOKENIZER.pat.pattern.removeprefix("<start_of_text>|<end_of_text>|"), OPEN_CLIP_TOKENIZER.pat.flags
)
BLOCK = 4096  # texts whose tokens are lists at any time


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
    """Any fast tokenizer of transformers, used as by open_clip.

    backend: the content of tokenizer.json. clean: canonicalize (SigLIP), whitespace, lower, or '' for texts as they
    are. zeroed_id: a token that CLIPA replaces by 0.
    """

    def __init__(self, backend: str, context_length: int, pad_id: int, clean: str = "", zeroed_id: int | None = None):
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=BackendTokenizer.from_str(backend))
        self.context_length, self.pad_id, self.zeroed_id = context_length, pad_id, zeroed_id
        self.clean = get_clean_fn(clean) if clean else str
        self.control_words = ControlWords(self.tokenizer)

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        options = {"return_attention_mask": False, "verbose": False}
        texts = [self.clean(text) for text in texts]
        rows = self.tokenizer(texts, truncation=True, max_length=self.context_length, **options).input_ids
        full = self.tokenizer(texts, truncation=False, **options).input_ids
        for number in filter(lambda number: self.control_words.within(texts[number]), range(len(texts))):
            rows[number] = self.control_words.encode_text(texts[number], True, self.context_length)
            full[number] = self.control_words.encode_text(texts[number], True)
        if self.zeroed_id is not None:
            rows = [[0 if token == self.zeroed_id else token for token in row] for row in rows]
        return rows, sum(len(row) > self.context_length for row in full)


Tokenizer = CLIPTokenizer | HuggingFaceTokenizer


@dataclass(frozen=True)
class EncodedTexts(Sequence[np.ndarray]):
    """Tokens of M texts in one array."""

    tokens: np.ndarray  # int32, one text after the other
    starts: np.ndarray  # (M + 1,)
    truncated: int  # texts that have lost their end

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.tokens[self.starts[index] : self.starts[index + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> EncodedTexts:
    tokens, lengths, truncated = [np.empty(0, np.int32)], [0], 0
    for start in range(0, len(texts), BLOCK):
        rows, count = tokenizer.encode(list(texts[start : start + BLOCK]))
        tokens.append(np.fromiter(chain.from_iterable(rows), np.int32))
        lengths += map(len, rows)
        truncated += count
    return EncodedTexts(np.concatenate(tokens), np.cumsum(lengths), truncated)


def build_tokenizer(config: dict[str, Any]) -> Tokenizer:
    """config: of tokenizer_config."""
    if config["kind"] == "clip":
        return CLIPTokenizer(config["context_length"])
    backend, length, pad_id = config["tokenizer_json"], config["context_length"], config["pad_id"]
    return HuggingFaceTokenizer(backend, length, pad_id, config.get("clean", ""), config.get("zeroed_id"))


def tokenizer_config(text: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """text: text_cfg of an architecture; folder: its tokenizer, if not by its name in text_cfg -> plain values."""
    length, name = text["context_length"], text.get("hf_tokenizer_name")
    if not name:
        return {"kind": "clip", "context_length": length}
    if text.get("tokenizer_mode"):
        raise ValueError(f"tokenizer_mode {text['tokenizer_mode']}: a way to tokenize that is not supported here")
    name = folder or name
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        backend = tokenizer.backend_tokenizer.to_str()
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"--text_tower {name}: no fast tokenizer can be read from it ({first_line(error)})") from error
    options = {"clean": "whitespace"} | (text.get("tokenizer_kwargs") or {})
    return {
        "kind": "huggingface",
        "context_length": length,
        # The encoder masks the padding by its own number for it.
        "pad_id": text["hf_config"]["pad_token_id"] if "hf_config" in text else tokenizer.pad_token_id,
        "tokenizer_json": backend,
        "clean": options["clean"],
        "zeroed_id": tokenizer.sep_token_id if options.get("strip_sep_token") else None,
    }
