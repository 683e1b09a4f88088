"""Lexicon of character descriptions, from the word lists of word_kinds.toml and rule_words.toml.

compound words that are on no list get their kind from their last part: "ankle-length", "rose-colored", "star-shaped"
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from common.text.lexicon import Kinds, Lexicon, read_word_lists

WORD_KINDS = read_word_lists(Path(__file__).with_name("word_kinds.toml"))  # {kind: words}
RULE_WORDS = SimpleNamespace(**read_word_lists(Path(__file__).with_name("rule_words.toml")))

PLURAL_KINDS = {"hair_noun", "hair_part", "pupil", "clothing", "accessories", "features", "weapons"}
THINGS = {"clothing", "accessories", "features", "weapons"}
HEADS = {"hair", "eyes", "skin"}
NOUNS = THINGS | HEADS | {"hair_noun", "hair_part", "pupil", "body", "person", "body_part", "expression", "kin"}
PAUSES = {",", ";", ":", "(", ")", "/"}
SUFFIXES = {"length": "length", "colored": "colour", "coloured": "colour", "shaped": "eye_style"}
LIKENESSES = ("like", "looking", "style", "themed", "less", "free")  # "cloak-like" is no cloak


class PersonaLexicon(Lexicon):
    """A lexicon that knows the compounds of descriptions."""

    def splits(self, compound: Sequence[str]) -> bool:
        return compound[-1] not in LIKENESSES and super().splits(compound)

    def unlisted(self, compound: Sequence[str]) -> tuple[int, Kinds]:
        first, last, length = compound[0], compound[-1], len(compound)
        if length > 1 and last in SUFFIXES and first.isalpha():
            return length, frozenset({SUFFIXES[last], "describing"})
        if length > 1 and last == "old":
            return length, frozenset({"age"})
        if length > 1 and not self.splits(compound):  # "red-rimmed" is known by its parts, "short-lived" is not
            return length - bool(self.kinds(last) & HEADS), frozenset({"compound", "describing"})
        return 1, self.kinds(first) or frozenset({"adverb"} if first.endswith("ly") else ())


LEXICON = PersonaLexicon(WORD_KINDS, PLURAL_KINDS)
