"""One sentence of a character, of at most so many CLIP tokens.

what looks.py and person.py found -> items in order of use (person, hair, eyes, ... traits) -> what fits -> sentence

    Mira Vale from Paper Harbour, a tall girl, with long black hair and green eyes, wearing a red dress; cheerful, kind.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache

from open_clip.tokenizer import SimpleTokenizer

from clip.persona.function_words import listed
from clip.persona.lexicon import BALDS
from clip.persona.text import LEXICON

UNCOUNTABLE = listed("""
    armor, armour, clothing, attire, garb, stubble, makeup, make-up, fur, hair, lipstick, eyeliner, eyeshadow,
    underwear, mail, plate, chainmail, spandex, hide, skin, war-paint, face-paint, nail-polish, facial-hair, eye-shadow,
    teeth, feet
""")
BALD = listed(BALDS)
LEADS = {"person": ", ", "with": ", with ", "wearing": ", wearing ", "carrying": ", carrying ", "traits": "; "}
KNOWN_WORDS = 100_000  # the tokenizer keeps every word it has seen; past this many it is made anew
# Scripts without blanks between words: each character is a piece.
EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
PIECE = re.compile(rf"\s*(?:[{EAST_ASIAN}]|[^\s{EAST_ASIAN}]+)")


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def count_tokens(text: str) -> int:
    """CLIP tokens of a text, start and end token counted."""
    if len(_tokenizer().cache) > KNOWN_WORDS:
        _tokenizer.cache_clear()
    return len(_tokenizer().encode(text)) + 2


def write_sentence(line: dict, description: str, max_tokens: int) -> tuple[str, bool]:
    """-> sentence of at most `max_tokens`, was something left out?

    line: name, title and what was found, as optimise_record gives it. description: what is quoted of a character of
    whom nothing was found.
    """
    items = list(_items(line))
    subject = line["character"] or ("A character" if items else "")
    if line["title"]:
        subject = f"{subject} from {line['title']}" if subject else line["title"]
    if not items:
        return _cut(f"{subject}. {description}" if subject and description else subject or description, max_tokens)
    counts = range(1, len(items) + 1)
    fits = bisect_right(counts, max_tokens, key=lambda count: count_tokens(_render(subject, items[:count])))
    if fits:
        return _render(subject, items[:fits]), fits < len(items)
    return _cut(subject, max_tokens)[0], True


def _items(line: dict) -> Iterator[tuple[str, str]]:
    """(kind of LEADS, words) in the order in which they are worth their tokens."""
    looks = line["appearance"]
    ages = [age for age in looks["age"] if not age.endswith("years old")]
    person = [*ages[:1], *[build for build in looks["build"] if " " not in build][:2]]
    if looks["sex"]:
        yield "person", _with_article(" ".join([*person, looks["sex"][0]]))
    elif person:
        yield "person", " and ".join(person)
    for build in (build for build in looks["build"] if " " in build):  # "average height"
        yield "with", build
    for noun in ("hair", "eyes"):
        found = line[noun]
        named = [style for style in found["style"] if _is_noun(style)]
        bald = [style for style in found["style"] if style in BALD]
        plain = [style for style in found["style"] if style not in named + bald]
        words = [*found.get("length", [])[:1], *plain[:2], *filter(None, [" and ".join(found["colour"][:2])])]
        if words:
            yield "with", " ".join([*words, noun])
        for style in [*named, *(f"{style} head" for style in bald)]:
            yield "with", _with_article(style)
    for skin in looks["skin"][:1]:
        yield "with", f"{skin} skin"
    for kind, key in (
        ("with", "features"),
        ("with", "expression"),
        ("wearing", "clothing"),
        ("wearing", "accessories"),
        ("carrying", "weapons"),
    ):
        for thing in looks[key]:
            yield kind, _with_article(thing)
    for trait in line["personality"]:
        yield "traits", trait


def _render(subject: str, items: list[tuple[str, str]]) -> str:
    text = subject
    for kind, lead in LEADS.items():
        things = [words for of_kind, words in items if of_kind == kind]
        if things:
            text += lead + (", ".join(things[:-1]) + " and " if things[1:] else "") + things[-1]
    return f"{text}."


def _cut(text: str, max_tokens: int) -> tuple[str, bool]:
    """The longest beginning that fits, between words or between Chinese, Japanese or Korean characters."""
    if count_tokens(text) <= max_tokens:
        return text, False
    pieces = PIECE.findall(text)
    fits = bisect_right(range(1, len(pieces)), max_tokens, key=lambda count: count_tokens("".join(pieces[:count])))
    return "".join(pieces[:fits]).strip().rstrip(",;:(-"), True


def _is_noun(style: str) -> bool:
    kinds = (LEXICON.get(tuple(re.split("[- ]", style)[-count:]), frozenset()) for count in (1, 2, 3))
    return any(kind & {"hair noun", "hair part", "pupil"} for kind in kinds)


def _with_article(thing: str) -> str:
    """ "red dress" -> a red dress; "round glasses" and "armor" stay."""
    words = thing.split()
    plural = (words[-1].endswith("s") and not words[-1].endswith("ss")) or words[0] in ("two", "three", "four")
    if plural or words[-1] in UNCOUNTABLE or "-".join(words[-2:]) in UNCOUNTABLE:
        return thing
    vowel = thing[0] in "aeiou8" and not thing.startswith(("uni", "eu", "one"))
    return f"{'an' if vowel else 'a'} {thing}"
