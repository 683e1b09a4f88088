"""A wiki-like text about a character to plain sentences, and these to words of known kinds.

text -> `clean_text` (no markup, no reference marks) -> `read_words` -> [[Lexeme, ...], ...]

Her [[hair]] is silver-white.[7] -> her, hair (hair), is (link verb), silver (colour), white (colour, behind a hyphen)
Words are whole words: "red" is not found in "bored", nor "tan" in "tangled".
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from clip.persona.function_words import LIKENESS, NOT_NEGATORS, listed
from clip.persona.lexicon import WORD_LISTS

# --- markup ---------------------------------------------------------------------------------------------------------

TAGS = "a|abbr|b|big|blockquote|br|center|code|dd|del|div|dl|dt|em|font|gallery|h[1-6]|hr|i|img|li|nowiki|ol|p|poem|pre"
TAGS += "|rb|ref|rp|rt|ruby|s|small|span|strike|strong|sub|sup|tabber|table|tbody|td|th|tr|tt|u|ul"
MARKUP = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), new)
    for pattern, new in (
        (r"<!--(?:(?!<!--|-->).)*-->", " "),
        (r"<ref\b[^>]*/>|<(ref|gallery)\b[^>]*>(?:(?!<ref\b|<gallery\b|</ref|</gallery).)*</\1\s*>", " "),
        (rf"</?(?:{TAGS})\b[^<>]*>", " "),
        (r"\[\[(?:file|image|category|media)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", " "),
        (r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]", r"\1"),
        (r"\[(?:https?:)?//\S+\s*([^\]]*)\]", r"\1"),
        (r"(?:https?://|www\.)[^\s\])>]+", " "),
        (
            r"\[\s*(?:\d+(?:\s*[,:–-]\s*\d+)*|[a-z]|[a-z][a-z ]*needed|edit|source|sic|who|when|where|which|why|how|"
            r"(?:(?:foot)?notes?|nb|n|fn|refs?|cit(?:e|ation)|ch(?:apter|\.)?|ep(?:isode|\.)?|vol(?:ume|\.)?|p{1,2}(?:age|\.)?)"
            r"[\s.:]*[\divxlc, –-]*)\s*\??\s*\]",
            " ",
        ),
        (r"\{\|(?:(?!\{\||\|\}).)*\|\}", " "),
        (r"'{2,}|\{\{|\}\}|\[\[|\]\]|__[A-Z]+__", ""),
        (r"={2,}", "\n"),
    )
]
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
PLAIN = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "ʼ": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "\u00a0": " ",
        "\u202f": " ",
        "‑": "-",
        "‐": "-",
        "\u00ad": None,
        "\u200b": None,
        "\u200c": None,
        "\u200d": None,
        "\u2060": None,
        "\ufeff": None,
        "↑": " ",
        "†": " ",
        "‡": " ",
        "\ufffd": None,
    }
)
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """One line without markup and reference marks; what stood on lines of its own ends in a full stop."""
    text = _without_markup(text)
    lines = (re.sub(r"^[\s*#:;•]+|^[+-]\s+", "", line).strip() for line in text.splitlines())
    ended = (
        line if line.endswith((".", "!", "?", ",", ";", ":", "。", "！", "？")) else f"{line}."
        for line in lines
        if line
    )
    text = re.sub(r"\s+", " ", " ".join(ended))
    text = re.sub(r"\(\s*[,;]*\s*\)|\[\s*\]", "", text)
    text = re.sub(r"\s+([.,;:!?)])", r"\1", text)
    text = re.sub(r"([.,])(?:\s*,)+|(\.)\.+(?=\s|$)", r"\1\2", text)
    return re.sub(r"\s+", " ", text).strip().removesuffix(" .").strip()


def clean_name(text: str) -> str:
    """A character or a title: markup goes, everything else is part of the name."""
    return re.sub(r"\s+", " ", _without_markup(text)).strip()


def _without_markup(text: str) -> str:
    text = NOT_TEXT.sub(" ", html.unescape(html.unescape(text)).translate(PLAIN))
    for _ in range(text.count("{{") and 20):  # innermost first
        text = TEMPLATE.sub(" ", text)
    for pattern, new in MARKUP:
        text = pattern.sub(new, text)
    return text


# --- words ----------------------------------------------------------------------------------------------------------

PLURAL_KINDS = {"hair noun", "hair part", "pupil", "clothing", "accessories", "features", "weapons"}
PAUSES = {",", ";", ":", "(", ")", "/"}
MAX_WORDS = 300  # of a sentence; a text without full stops is read in pieces, so that time grows with length alone
SIGNS = {"–": ";", "—": ";", "-": ";", "+": ";", "[": "(", "]": ")", "&": "and"}
SUFFIXES = {"length": "length", "colored": "colour", "coloured": "colour", "shaped": "eye style"}
LIKE = ("like", "looking", "style", "themed", "less", "free")  # "cloak-like" is no cloak
TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")
SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])[\"')]*\s+|(?<=[。！？])")


@dataclass(slots=True)
class Lexeme:
    """A word, or several that are one: "high heels", "never seen"."""

    words: str  # lower case
    kinds: frozenset[str]
    joint: str = " "  # what stands before it, "-" inside a compound
    capital: bool = False
    absent: bool = False  # denied, wished for, or somebody else's


END = Lexeme(".", frozenset())


def _plural(word: str) -> str:
    if word.endswith("s") and not word.endswith("ss"):
        return word
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("ss", "sh", "ch", "x")) else "s")


def _read_lists() -> dict[tuple[str, ...], frozenset[str]]:
    lexicon: dict[tuple[str, ...], set[str]] = {}
    for kind, entries in WORD_LISTS.items():
        for entry in listed(entries):
            for form in {entry, _plural(entry)} if kind in PLURAL_KINDS else {entry}:
                parts = tuple(re.split("[- ]", form))
                lexicon.setdefault(parts, set()).add(kind)
                if "-" in form:
                    lexicon.setdefault(("".join(parts),), set()).add(kind)
    likenesses = [f"{verb} like {article}" for verb in listed(LIKENESS) for article in ("a", "an")]
    for phrase in listed(NOT_NEGATORS) + likenesses:
        lexicon[tuple(phrase.split())] = {"stop"}
    return {parts: frozenset(kinds) for parts, kinds in lexicon.items()}


LEXICON = _read_lists()
LONGEST = max(map(len, LEXICON))


def read_words(text: str, name: str = "") -> Iterator[list[Lexeme]]:
    """Cleaned text -> the lexemes of each sentence. A word of the character's `name` ("Violet") is no colour."""
    own = set(name.lower().replace("-", " ").split())
    for sentence in SENTENCE_END.split(text):
        lexemes = list(_read_words(sentence))
        for lexeme, following in zip(lexemes, [*lexemes[1:], END]):
            if lexeme.capital and lexeme.words in own and not following.kinds - {"verb", "link verb", "stop", "link"}:
                lexeme.kinds = frozenset()
        for start in range(0, len(lexemes), MAX_WORDS):
            yield lexemes[start : start + MAX_WORDS]


def _read_words(sentence: str) -> Iterator[Lexeme]:
    tokens = [(match[0].lower(), match.start(), match.end()) for match in TOKEN.finditer(sentence)]
    joined = [  # is token i joined to the one before it by a hyphen?
        place > 1 and tokens[place - 1][0] == "-" and tokens[place - 2][2] + 1 == tokens[place][1]
        for place in range(len(tokens))
    ]
    kept = [place for place in range(len(tokens)) if not _between(tokens, place)]
    place = 0
    while place < len(kept):
        word, start, end = tokens[kept[place]]
        joint = "-" if joined[kept[place]] else " "
        if not word[0].isalnum():
            place += 1
            if word not in "\"'`":
                yield Lexeme(SIGNS.get(word, word), frozenset())
            continue
        count, kinds = _longest(tokens, kept, place, joined)
        end = tokens[kept[place + count - 1]][2]
        yield Lexeme(sentence[start:end].lower(), kinds, joint, sentence[start].isupper())
        place += count


def _between(tokens: list, place: int) -> bool:
    """Is this the hyphen of a compound?"""
    return (
        tokens[place][0] == "-"
        and 0 < place < len(tokens) - 1
        and tokens[place - 1][2] == tokens[place][1]
        and tokens[place][2] == tokens[place + 1][1]
    )


def _longest(tokens: list, kept: list[int], place: int, joined: list[bool]) -> tuple[int, frozenset[str]]:
    """The longest entry of the lists that starts here -> number of words, kinds; an unknown compound is one word."""
    length = 1
    while place + length < len(kept) and joined[kept[place + length]]:
        length += 1
    parts = [tokens[one][0] for one in kept[place : place + length]]
    strange = parts[-1] in LIKE or any((part,) not in LEXICON for part in parts)
    run = [tokens[one][0] for one in kept[place : place + LONGEST]]
    for count in range(len(run), 1, -1):
        if tuple(run[:count]) in LEXICON and (count >= length or not strange):
            return count, LEXICON[tuple(run[:count])]
    if length > 1:
        if parts[-1] in SUFFIXES and parts[0].isalpha():
            return length, frozenset({SUFFIXES[parts[-1]], "describing"})
        if parts[-1] == "old":
            return length, frozenset({"age"})
        if strange:  # "red-rimmed" is known by its parts, "short-lived" is not
            head = LEXICON.get((parts[-1],), frozenset()) & {"hair", "eyes", "skin"}
            return (length - 1 if head else length), frozenset({"compound", "describing"})
    kinds = LEXICON.get((parts[0],))
    if kinds is None:
        kinds = frozenset({"adverb"}) if parts[0].endswith("ly") else frozenset()
    return 1, kinds
