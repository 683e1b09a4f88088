"""Lexicon of word lists: text to lexemes, the words and fixed phrases of the lists with their kinds.

word lists {kind: entries} -> Lexicon -> lexicon.read(text) -> sentences [[Lexeme, ...], ...]

    Her hair is silver-white. -> her, hair (hair), is (link_verb), silver (colour), white (colour, joined by a hyphen)

Words match as a whole: "red" is not in "bored". The longest entry that starts at a word wins.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.text.files import read_text

MAX_WORDS = 300  # of a sentence; a text without full stops is read in pieces, so that time stays linear in its length
SIGNS = {"–": ";", "—": ";", "-": ";", "+": ";", "[": "(", "]": ")", "&": "and"}  # read as
QUOTES = "\"'`"  # skipped
TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|(?!(?<=\S)-(?=\S))[^\w\s]")  # a word, or a sign that is no hyphen within one
HYPHEN = re.compile(r"\S-\Z")
SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])[\"')]*\s+|(?<=[。！？])")

Kinds = frozenset[str]


@dataclass(slots=True)
class Lexeme:
    """A word, a sign, or several words that are one entry: "high heels", "never seen"."""

    words: str  # lower case
    kinds: Kinds = frozenset()
    joint: str = " "  # what separates it from the word before, "-" within a compound
    capitalized: bool = False
    negated: bool = False


def read_word_lists(path: str | Path) -> dict[str, Any]:
    """A TOML file of word lists."""
    return tomllib.loads(read_text(path))


def plural(noun: str) -> str:
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ss", "sh", "ch", "x")) else "s")


class Lexicon:
    """`lexicon.read(text)`. word_lists: {kind: entries}; entries of `plural_kinds` stand for their plural too.

    A hyphen or a blank within an entry stands for all spellings: "pony-tail" is ponytail, pony tail and pony-tail.
    """

    def __init__(self, word_lists: Mapping[str, Collection[str]], plural_kinds: Collection[str] = ()):
        entries: dict[tuple[str, ...], set[str]] = {}
        for kind, words in word_lists.items():
            for word in {*words, *(plural(word) for word in words if kind in plural_kinds)}:
                parts = tuple(re.split("[- ]", word))
                for spelling in {parts, ("".join(parts),)} if "-" in word else {parts}:
                    entries.setdefault(spelling, set()).add(kind)
        self.entries = {parts: frozenset(kinds) for parts, kinds in entries.items()}
        self.longest = max(map(len, self.entries))

    def kinds(self, *words: str) -> Kinds:
        """The kinds of an entry of these words, none where there is no such entry."""
        return self.entries.get(words, frozenset())

    def read(self, text: str) -> Iterator[list[Lexeme]]:
        """Text without markup -> the lexemes of each sentence."""
        for sentence in SENTENCE_END.split(text):
            lexemes = list(self._lexemes(sentence))
            for start in range(0, len(lexemes), MAX_WORDS):
                yield lexemes[start : start + MAX_WORDS]

    def splits(self, compound: Sequence[str]) -> bool:
        """Whether the words of a compound may be read apart: they may where all of them are listed."""
        return all(self.kinds(word) for word in compound)

    def unlisted(self, compound: Sequence[str]) -> tuple[int, Kinds]:
        """A word or compound that starts no longer entry -> number of its words that are one lexeme, their kinds."""
        return 1, self.kinds(compound[0])

    def _lexemes(self, sentence: str) -> Iterator[Lexeme]:
        tokens = list(TOKEN.finditer(sentence))
        words = [token[0].lower() for token in tokens]
        hyphenated = [bool(HYPHEN.search(sentence, 0, token.start())) for token in tokens]
        position = 0
        while position < len(tokens):
            word, start = words[position], tokens[position].start()
            if not word[0].isalnum():
                position += 1
                if word not in QUOTES:
                    yield Lexeme(SIGNS.get(word, word))
                continue
            end = next((index for index in range(position + 1, len(tokens)) if not hyphenated[index]), len(tokens))
            count, kinds = self._match(words[position : position + self.longest], words[position:end])
            text = sentence[start : tokens[position + count - 1].end()]
            yield Lexeme(text.lower(), kinds, "-" if hyphenated[position] else " ", text[0].isupper())
            position += count

    def _match(self, words: Sequence[str], compound: Sequence[str]) -> tuple[int, Kinds]:
        """The longest entry at the start of `words` -> number of words, kinds. compound: the first words, joined."""
        apart = self.splits(compound)
        for count in range(len(words), 1, -1):
            if (kinds := self.kinds(*words[:count])) and (apart or count >= len(compound)):
                return count, kinds
        return self.unlisted(compound)
