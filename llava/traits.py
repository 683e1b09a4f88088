"""What a text says of a person's looks and nature, as values that can be compared.

text -> {trait: value} for hair colour, hair length, eye colour, and temperament; a trait that is not said is left out

English only. Colours count where they stand before 'hair' or 'eyes' with at most two words between ('blue and sleepy
eyes'), or behind them ('her hair is long and silver').
"""

import re
from collections.abc import Sequence

from common.metrics.bootstrap import bootstrap_interval

HAIR_COLOURS = {
    "black": ("black", "raven"),
    "brown": ("brown", "chestnut", "brunette"),
    "blonde": ("blonde", "blond", "golden"),
    "red": ("red", "ginger", "crimson"),
    "silver": ("silver", "grey", "gray"),
    "white": ("white",),
    "blue": ("blue", "navy"),
    "pink": ("pink",),
    "green": ("green", "teal"),
    "purple": ("purple", "violet", "lavender"),
    "orange": ("orange",),
}
EYE_COLOURS = {
    "brown": ("brown", "hazel"),
    "blue": ("blue", "azure"),
    "green": ("green", "emerald"),
    "red": ("red", "crimson"),
    "purple": ("purple", "violet"),
    "yellow": ("yellow", "golden", "amber"),
    "grey": ("grey", "gray", "silver"),
    "pink": ("pink",),
    "black": ("black", "dark"),
}
LENGTHS = {"short": ("short", "cropped"), "medium": ("shoulder-length", "medium-length"), "long": ("long", "flowing")}
TEMPERAMENTS = {
    "cheerful": ("cheerful", "happy", "energetic", "optimistic", "lively", "playful", "smiling"),
    "calm": ("calm", "composed", "reserved", "quiet", "serious", "stoic"),
    "gentle": ("gentle", "kind", "caring", "warm", "melancholy", "sad"),
    "curious": ("curious", "amazed", "inquisitive", "surprised"),
    "proud": ("proud", "arrogant", "haughty", "quick-tempered", "angry", "fierce"),
    "shy": ("shy", "timid", "bashful"),
}


def extract_traits(text: str) -> dict[str, str]:
    found = {
        "hair colour": _of_thing(text, HAIR_COLOURS, "hair"),
        "hair length": _of_thing(text, LENGTHS, "hair"),
        "eye colour": _of_thing(text, EYE_COLOURS, "eyes?"),
        "temperament": _first(text, TEMPERAMENTS),
    }
    return {trait: value for trait, value in found.items() if value}


def trait_accuracy(found: Sequence[dict[str, str]], true: Sequence[dict[str, str]]) -> dict[str, dict]:
    """Traits of N descriptions, traits that are true -> {trait: {accuracy, interval, said, samples, most_common}}.

    Of the samples where the trait is known; not to say it is wrong. accuracy, 0..1, with a 95 % interval; said: share
    of descriptions that give some value; most_common: the accuracy of always giving the most frequent true value.
    """
    measured = {}
    for trait in sorted({trait for one in true for trait in one}):
        known = [(guess.get(trait), truth[trait]) for guess, truth in zip(found, true) if trait in truth]
        hits = [float(guess == truth) for guess, truth in known]
        values = [truth for _, truth in known]
        measured[trait] = {
            "accuracy": sum(hits) / len(hits),
            "interval": bootstrap_interval(hits, top=1.0),
            "said": sum(guess is not None for guess, _ in known) / len(known),
            "samples": len(known),
            "most_common": max(map(values.count, values)) / len(values),
        }
    return measured


def _of_thing(text: str, options: dict[str, tuple[str, ...]], thing: str) -> str | None:
    """The value said of a thing, nearest to it."""
    near = []
    for value, words in options.items():
        for word in words:
            before = rf"\b{re.escape(word)}\b((?:[\s,-]+(?!{thing}\b)\w+){{0,2}})[\s,-]+{thing}\b"
            behind = rf"\b{thing}\s+(?:is|are|was|were)\b((?:[\s,-]+\w+){{0,2}}?)[\s,-]+{re.escape(word)}\b"
            for pattern in (before, behind):
                matches = re.finditer(pattern, text, re.IGNORECASE)
                near += [(len(match.group(1).split()), match.start(), value) for match in matches]
    return min(near)[2] if near else None


def _first(text: str, options: dict[str, tuple[str, ...]]) -> str | None:
    found = [
        (match.start(), value)
        for value, words in options.items()
        for word in words
        if (match := re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))
    ]
    return min(found)[1] if found else None
