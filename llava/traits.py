"""Appearance and temperament of persons, extracted from English text by word lists (traits.toml).

text -> {trait: value} for hair colour, hair length, eye colour and temperament; others are absent

Colours count before 'hair' or 'eyes' with at most two words between ('blue and sleepy eyes'), or behind them ('her hair
is long and silver').
"""

import re
from collections.abc import Sequence
from pathlib import Path

from common.metrics.bootstrap import bootstrap_interval
from common.text.lexicon import read_word_lists

WORD_LISTS: dict[str, dict[str, list[str]]] = read_word_lists(Path(__file__).with_name("traits.toml"))
NOUNS = {"hair colour": "hair", "hair length": "hair", "eye colour": "eyes?"}  # patterns of what the value belongs to


def extract_traits(text: str) -> dict[str, str]:
    """The value nearest to its noun; of traits without a noun, the value mentioned first."""
    traits = {}
    for trait, values in WORD_LISTS.items():
        matches = [
            (len(match.groupdict(default="").get("between", "").split()), match.start(), value)
            for value, words in values.items()
            for word in words
            for pattern in _patterns(re.escape(word), NOUNS.get(trait))
            for match in re.finditer(pattern, text, re.IGNORECASE)
        ]
        if matches:
            traits[trait] = min(matches)[2]
    return traits


def _patterns(word: str, noun: str | None) -> list[str]:
    if noun is None:
        return [rf"\b{word}\b"]
    return [
        rf"\b{word}\b(?P<between>(?:[\s,-]+(?!{noun}\b)\w+){{0,2}})[\s,-]+{noun}\b",
        rf"\b{noun}\s+(?:is|are|was|were)\b(?P<between>(?:[\s,-]+\w+){{0,2}}?)[\s,-]+{word}\b",
    ]


def trait_accuracy(predicted: Sequence[dict[str, str]], true: Sequence[dict[str, str]]) -> dict[str, dict]:
    """Traits of N descriptions, true traits -> {trait: {accuracy, interval, predicted, samples, most_common}}.

    Over the samples whose trait is known; an absent prediction is wrong. accuracy, 0..1, with a 95 % interval;
    predicted: share of descriptions with any value; most_common: accuracy of always predicting the most frequent one.
    """
    results = {}
    for trait in sorted({trait for traits in true for trait in traits}):
        known = [(guess.get(trait), truth[trait]) for guess, truth in zip(predicted, true) if trait in truth]
        hits = [float(guess == truth) for guess, truth in known]
        values = [truth for _, truth in known]
        results[trait] = {
            "accuracy": sum(hits) / len(hits),
            "interval": bootstrap_interval(hits, top=1.0),
            "predicted": sum(guess is not None for guess, _ in known) / len(known),
            "samples": len(known),
            "most_common": max(map(values.count, values)) / len(values),
        }
    return results
