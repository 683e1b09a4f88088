"""Pairs of images and texts that fit and that do not, for fine-tuning and for evaluation.

images with the texts that fit them -> fitting pairs -> the same texts exchanged between images -> unfitting pairs

A text stands in as many unfitting pairs as fitting ones, and so do images as nearly as possible: neither alone says
whether they fit. Texts are exchanged between images of one group, which makes hard pairs, and between any two.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from common.metrics.text import WordTokenizer

TRIES = 50  # partners that a pair which fits after all is offered
split_words = WordTokenizer().tokenize


@dataclass(frozen=True)
class AnnotatedImage:
    """texts: that fit it, in one language. groups: its values in each grouping, the finest first."""

    path: str
    texts: tuple[str, ...]
    groups: tuple[str, ...] = ()

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(word for text in self.texts for word in split_words(text))

    def may_fit(self, text: str) -> bool:
        """Whether each word of a text is among the image's own: "cat" fits what "a black cat" fits."""
        return self.words.issuperset(split_words(text))


class Pair(NamedTuple):
    image: int  # its number
    text: str
    fits: bool
    is_hard: bool = False  # does not fit, but an image of the same group

    @property
    def kind(self) -> str:
        return "fits" if self.fits else "hard" if self.is_hard else "easy"


def draw_pairs(
    images: Sequence[AnnotatedImage], texts_per_image: int, random: np.random.Generator
) -> tuple[list[Pair], int]:
    """-> as many fitting as unfitting pairs, number of fitting pairs without a counterpart, which are not used.

    Each image gives up to texts_per_image of its texts. A text goes to an image of the same group in one of the
    groupings, or to any, with equal probability; where that leaves it with none, to one of the next coarser grouping.
    """
    fitting = [
        Pair(number, image.texts[index], True)
        for number, image in enumerate(images)
        for index in random.permutation(len(image.texts))[:texts_per_image]
    ]
    unfitting, unused = exchange_within_groups(images, fitting, random)
    surplus = Counter(pair.text for pair in unused)
    balanced = []
    for pair in fitting:
        surplus[pair.text] -= 1
        if surplus[pair.text] < 0:
            balanced.append(pair)
    return balanced + unfitting, len(unused)


def exchange_within_groups(
    images: Sequence[AnnotatedImage], pairs: Sequence[Pair], random: np.random.Generator, first_level: int | None = None
) -> tuple[list[Pair], list[Pair]]:
    """-> pairs with the same texts that do not fit, pairs for whose texts no image is found.

    first_level: of all pairs; None draws one of each.
    """
    levels = len(images[0].groups) + 1
    starts = random.integers(levels, size=len(pairs)) if first_level is None else [first_level] * len(pairs)
    unfitting: list[Pair] = []
    remaining: list[Pair] = []
    for level in range(levels):
        pool = remaining + [pair for pair, start in zip(pairs, starts) if start == level]
        exchanged, remaining = exchange_texts(images, pool, level, random)
        unfitting += exchanged
    return unfitting, remaining


def exchange_texts(
    images: Sequence[AnnotatedImage], pairs: Sequence[Pair], level: int, random: np.random.Generator
) -> tuple[list[Pair], list[Pair]]:
    """Texts of pairs in another order among images of one group, of any at the last level -> pairs that do not fit,
    pairs for which no other order is found."""
    blocks: dict[tuple[str, ...], list[Pair]] = defaultdict(list)
    for pair in pairs:
        blocks[images[pair.image].groups[level:]].append(pair)
    unfitting, remaining = [], []
    for groups, block in blocks.items():
        if groups and not groups[0]:  # of no group
            remaining += block
            continue
        texts = [block[index].text for index in random.permutation(len(block))]
        owners = [images[pair.image] for pair in block]
        for place, owner in enumerate(owners):
            if not owner.may_fit(texts[place]):
                continue
            for other in random.integers(len(block), size=TRIES):
                if not owner.may_fit(texts[other]) and not owners[other].may_fit(texts[place]):
                    texts[place], texts[other] = texts[other], texts[place]
                    break
        for pair, owner, text in zip(block, owners, texts):
            target = remaining if owner.may_fit(text) else unfitting
            target.append(Pair(pair.image, text, False, bool(groups)))
    return unfitting, remaining
