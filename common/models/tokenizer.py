"""Tokenizers: of published models, without running code of theirs, and small ones trained from texts.

name or folder (tokenizer.json, vocabularies, sentencepiece models) -> tokenizer of transformers
texts -> byte-level BPE, for models that are built from scratch
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from common.text.schema import read_checked

SPACE = "▁"  # of sentencepiece
PROBE = "  a picture  of 2 cats\nand 书生·万象 é ① 🙂 "  # and parts of its vocabulary have to get the same ids


def load_tokenizer(source: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """From a folder or the Hub. options: of AutoTokenizer.

    Some folders, as InternLM2's, name a class of their own in place of transformers' (auto_map): their tokenizer.json
    or tokenizer.model is read by transformers' classes. ValueError where neither is there.
    """
    folder = Path(source)
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and "auto_map" in (config := read_checked(settings, dict[str, Any])):
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        if (folder / "tokenizer.model").is_file():
            return _from_sentencepiece(folder, config.get("add_bos_token", True))
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)


def _from_sentencepiece(folder: Path, add_bos_token: bool) -> PreTrainedTokenizerFast:
    """tokenizer.model of a Llama-like tokenizer, with the special tokens of the folder."""
    theirs = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    has_prefix = theirs.encode("a", out_type=str)[0].startswith(SPACE)  # a space before every text
    tokenizer = LlamaTokenizer.from_pretrained(folder, add_prefix_space=has_prefix, add_bos_token=add_bos_token)
    # LlamaTokenizer omits the prefix before texts that begin with a space.
    steps = [normalizers.Prepend(SPACE)] if has_prefix else []
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    tokenizer.backend_tokenizer.pre_tokenizer = None
    pieces = theirs.id_to_piece(list(range(0, len(theirs), max(1, len(theirs) // 2000))))
    probe = PROBE + "".join(piece for piece in pieces if not piece.startswith("<")).replace(SPACE, " ")
    if tokenizer.encode(probe, add_special_tokens=False) != theirs.encode(probe):
        raise ValueError(f"{folder}/tokenizer.model: transformers' Llama tokenizer gives other ids than sentencepiece")
    return tokenizer


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    pad_token: str,
    eos_token: str,
    bos_token: str | None = None,
    extra_special_tokens: dict[str, str] | Sequence[str] = (),
    single_digits: bool = False,
) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text goes through it unchanged. Special tokens have the first ids, in the order given here.

    bos_token: begins every text. single_digits: one token for each digit, as in Llama's tokenizer.
    """
    extra = list(extra_special_tokens.values() if isinstance(extra_special_tokens, dict) else extra_special_tokens)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if single_digits
        else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*dict.fromkeys(filter(None, (pad_token, bos_token, eos_token))), *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if bos_token:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos_token} $A", special_tokens=[(bos_token, tokenizer.token_to_id(bos_token))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad_token,
        bos_token=bos_token,
        eos_token=eos_token,
        extra_special_tokens=extra_special_tokens or [],
    )
