"""Small tokenizers trained from texts, for models that are built from scratch."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


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
