"""Words -> token numbers, by CLIP's byte-pair encoding or by a Hugging Face tokenizer.

texts (list of str) -> list of token lists without padding -> `pad` -> tokens (B, T), T = the longest of the batch

CLIP's text tower looks only backwards, so padding behind the end token changes nothing and need not be computed; the
same holds for encoders with a padding mask. Short captions then cost a fraction of 77 tokens.
"""

import json
from functools import cached_property
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import Tokenizer as BackendTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast


class ClipTokenizer:
    """Byte-pair encoding of CLIP; the vocabulary comes with open_clip."""

    pad_id = 0

    def __init__(self, context_length: int = 77):
        self.context_length = context_length

    @cached_property
    def _bpe(self) -> SimpleTokenizer:
        return SimpleTokenizer()

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        """-> tokens of each text with start and end, at most context_length; number of texts that were cut."""
        bpe, found, cut = self._bpe, [], 0
        for text in texts:
            tokens = [bpe.sot_token_id, *bpe.encode(text), bpe.eot_token_id]
            if len(tokens) > self.context_length:
                tokens = [*tokens[: self.context_length - 1], bpe.eot_token_id]
                cut += 1
            found.append(tokens)
        return found, cut

    def to_facts(self) -> dict:
        """Plain values that `tokenizer_from` rebuilds it from."""
        return {"kind": "clip", "context_length": self.context_length}


class HuggingFaceTokenizer:
    """Any fast tokenizer of transformers, for a Hugging Face text tower."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, context_length: int, pad_id: int):
        self.tokenizer, self.context_length, self.pad_id = tokenizer, context_length, pad_id

    def encode(self, texts: list[str]) -> tuple[list[list[int]], int]:
        found = self.tokenizer(
            list(texts), truncation=True, max_length=self.context_length, return_attention_mask=False
        )
        full = self.tokenizer(list(texts), truncation=False, return_attention_mask=False, verbose=False)
        return found.input_ids, sum(len(one) > self.context_length for one in full.input_ids)

    def to_facts(self) -> dict:
        return {
            "kind": "huggingface",
            "context_length": self.context_length,
            "pad_id": self.pad_id,
            "tokenizer_json": self.tokenizer.backend_tokenizer.to_str(),
        }


def tokenizer_from(facts: dict) -> ClipTokenizer | HuggingFaceTokenizer:
    if facts["kind"] == "clip":
        return ClipTokenizer(facts["context_length"])
    backend = BackendTokenizer.from_str(facts["tokenizer_json"])
    return HuggingFaceTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend), facts["context_length"], facts["pad_id"]
    )


def read_tokenizer(name: str | Path, context_length: int, pad_id: int) -> HuggingFaceTokenizer:
    """The tokenizer of a Hugging Face name or folder."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        json.loads(tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"--text_tower {name}: no tokenizer to be had ({str(error).splitlines()[0]})") from error
    return HuggingFaceTokenizer(tokenizer, context_length, pad_id)


def pad(sequences: list[list[int]], pad_id: int) -> torch.Tensor:
    """Token lists -> (B, longest) int64."""
    rows = [torch.as_tensor(sequence, dtype=torch.int64) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)
