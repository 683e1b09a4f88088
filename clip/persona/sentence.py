"""Sentence about a character within a limit of CLIP tokens.

values of appearance.py and person.py -> phrases in order of use (person, hair, eyes, ... traits) -> those that fit

    Mira Vale from Paper Harbour, a tall girl, with long black hair and green eyes, wearing a red dress; cheerful, kind.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache

from open_clip.tokenizer import SimpleTokenizer

from clip.persona.lexicon import LEXICON, RULE_WORDS, WORD_KINDS

PARTS = {"with": ("features", "expression"), "wearing": ("clothing", "accessories"), "carrying": ("weapons",)}
LEADS = {"person": ", ", "with": ", with ", "wearing": ", wearing ", "carrying": ", carrying ", "traits": "; "}
MAX_CACHED_WORDS = 100_000  # the tokenizer caches every word; beyond this many a new one is made
# Scripts without blanks between words: each character is a piece.
EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
PIECE = re.compile(rf"\s*(?:[{EAST_ASIAN}]|[^\s{EAST_ASIAN}]+)")


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def count_tokens(text: str) -> int:
    """CLIP tokens of a text, start and end token counted."""
    if len(_tokenizer().cache) > MAX_CACHED_WORDS:
        _tokenizer.cache_clear()
    return len(_tokenizer().encode(text)) + 2


def write_sentence(record: dict, description: str, max_tokens: int) -> tuple[str, bool]:
    """-> sentence of at most `max_tokens`, whether it was shortened.

    record: name, title and values as of optimise_record. description: quoted where no values were found.
    """
    phrases = list(_phrases(record))
    subject = record["character"] or ("A character" if phrases else "")
    if record["title"]:
        subject = f"{subject} from {record['title']}" if subject else record["title"]
    if not phrases:
        return _cut(". ".join(filter(None, [subject, description])), max_tokens)
    fitting = bisect_right(
        range(1, len(phrases) + 1), max_tokens, key=lambda count: count_tokens(_render(subject, phrases[:count]))
    )
    if fitting:
        return _render(subject, phrases[:fitting]), fitting < len(phrases)
    return _cut(subject, max_tokens)[0], True


def _phrases(record: dict) -> Iterator[tuple[str, str]]:
    """(key of LEADS, words), the most telling first."""
    looks = record["appearance"]
    ages = [age for age in looks["age"] if not age.endswith("years old")]
    person = [*ages[:1], *[build for build in looks["build"] if " " not in build][:2]]
    if looks["sex"]:
        yield "person", _with_article(" ".join([*person, looks["sex"][0]]))
    elif person:
        yield "person", " and ".join(person)
    yield from (("with", build) for build in looks["build"] if " " in build)  # "average height"
    for noun in ("hair", "eyes"):
        values = record[noun]
        nouns = [style for style in values["style"] if _is_noun(style)]
        bald = [style for style in values["style"] if style in WORD_KINDS["bald"]]
        adjectives = [style for style in values["style"] if style not in nouns + bald]
        words = [*values.get("length", [])[:1], *adjectives[:2], " and ".join(values["colour"][:2])]
        if any(words):
            yield "with", " ".join(filter(None, [*words, noun]))
        yield from (("with", _with_article(style)) for style in [*nouns, *(f"{style} head" for style in bald)])
    yield from (("with", f"{skin} skin") for skin in looks["skin"][:1])
    for lead, keys in PARTS.items():
        yield from ((lead, _with_article(thing)) for key in keys for thing in looks[key])
    yield from (("traits", trait) for trait in record["personality"])


def _render(subject: str, phrases: list[tuple[str, str]]) -> str:
    text = subject
    for key, lead in LEADS.items():
        if things := [words for its_key, words in phrases if its_key == key]:
            text += lead + " and ".join([", ".join(things[:-1]), things[-1]] if things[1:] else things)
    return f"{text}."


def _cut(text: str, max_tokens: int) -> tuple[str, bool]:
    """The longest beginning that fits, cut between words or between Chinese, Japanese or Korean characters."""
    if count_tokens(text) <= max_tokens:
        return text, False
    pieces = PIECE.findall(text)
    fitting = bisect_right(range(1, len(pieces)), max_tokens, key=lambda count: count_tokens("".join(pieces[:count])))
    return "".join(pieces[:fitting]).strip().rstrip(",;:(-"), True


def _is_noun(style: str) -> bool:
    words = re.split("[- ]", style)
    return any(LEXICON.kinds(*words[-count:]) & {"hair_noun", "hair_part", "pupil"} for count in (1, 2, 3))


def _with_article(thing: str) -> str:
    """ "red dress" -> a red dress; "round glasses" and "armor" stay."""
    words = thing.split()
    if (
        (words[-1].endswith("s") and not words[-1].endswith("ss"))
        or words[0] in ("two", "three", "four")
        or {words[-1], "-".join(words[-2:])} & set(RULE_WORDS.uncountable)
    ):
        return thing
    vowel = thing[0] in "aeiou8" and not thing.startswith(("uni", "eu", "one"))
    return f"{'an' if vowel else 'a'} {thing}"
