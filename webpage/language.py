"""Texts in a language that a model was not trained on, as far as its tokenizer shows.

A tokenizer takes apart what its training texts did not hold: an English one makes two or three tokens of a Chinese
letter, one of both languages a token of one or two letters.
"""

import re
from typing import Any

LETTERS = re.compile(r"[^\W\d_a-zA-Z]+")  # of other alphabets than the plain Latin one
SHOWN = 12  # letters


def foreign_letters(tokenizer: Any, text: str) -> str:
    """Letters of `text` that the tokenizer does not know or makes more tokens of than there are letters; '' = none.

    tokenizer: of transformers or of clip/tokenizer.py.
    """
    words = LETTERS.findall(text)
    if not words:
        return ""
    letters, tokenizer = "".join(words), getattr(tokenizer, "tokenizer", tokenizer)
    if hasattr(tokenizer, "unk_token_id"):
        ids, unknown = tokenizer.encode(letters, add_special_tokens=False), tokenizer.unk_token_id
    else:  # CLIP's own, which puts a token at either end
        ids, unknown = tokenizer.encode([letters])[0][0][1:-1], None
    return " ".join(words) if unknown in ids or len(ids) - 1 > len(letters) else ""  # some begin with one for a space


def language_warning(tokenizer: Any, text: str) -> str:
    """A line for the reader of the answer, '' where there is nothing to warn of."""
    letters = foreign_letters(tokenizer, text)
    shown = letters if len(letters) <= SHOWN else f"{letters[:SHOWN]}…"
    return f"the tokenizer has no words for “{shown}”: the model was hardly trained on this language" if letters else ""
