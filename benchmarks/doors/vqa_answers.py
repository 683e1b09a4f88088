"""common.metrics.vqa: random answers, normalised as the official evaluator's rules say when followed sign by sign, and
scored by leaving each annotator out in turn."""

import math
from fractions import Fraction
from pathlib import Path
from random import Random

from common.metrics.vqa import ARTICLES, NUMBERS, PUNCTUATION, RESTORED, normalise_answer, vqa_accuracy

PIECES = (
    *"abz019",
    *PUNCTUATION,
    *".':’\n\t\r\u00a0\u3000٣½ßé猫",
    " ",
    " ",
    "yes",
    "2.5",
    "u.s.",
    "1,000",
    "The",
    "...",
)
WORDS = (*ARTICLES, *NUMBERS, *RESTORED, *RESTORED.values(), "Im", "black cats")


def trial(random: Random, folder: Path) -> str:
    pool = [_answer(random) for _ in range(random.randint(1, 4))]
    answers = [random.choice(pool) for _ in range(random.choice((10, 10, 10, 4, 7)))]
    prediction = random.choice([*pool, normalise_answer(pool[0]), _answer(random)])
    for text in (prediction, *pool):
        assert normalise_answer(text) == by_signs(text), text
    found, expected = vqa_accuracy(prediction, answers), by_annotators(prediction, answers)
    assert math.isclose(found, expected, abs_tol=1e-12), (prediction, answers, found, expected)
    return "read"


def _answer(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice((" ", "  ", ", ", "-")).join(random.choices(WORDS, k=random.randint(0, 4)))
    if random.random() < 0.1:
        return "." * random.randint(25, 40) + random.choice(WORDS)
    return "".join(random.choices(PIECES, k=random.randint(0, 12)))


def by_signs(text: str) -> str:
    """The official normalisation, one rule after the other."""
    text = text.translate({ord("\n"): " ", ord("\t"): " "}).strip()
    between_digits = any(
        middle == "," and left.isdecimal() and right.isdecimal()
        for left, middle, right in zip(text, text[1:], text[2:])
    )
    at_spaces = {sign for pair in zip(text, text[1:]) if " " in pair for sign in pair}
    signs = {sign: "" if between_digits or sign in at_spaces else " " for sign in PUNCTUATION}
    text = "".join(signs.get(sign, sign) for sign in text)
    kept, removed = "", 0
    for sign, following in zip(text, text[1:] + " "):
        if sign == "." and not following.isdecimal() and removed < 32:
            removed += 1
        else:
            kept += sign
    words = [NUMBERS.get(word, word) for word in kept.lower().split()]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def by_annotators(prediction: str, answers: list[str]) -> float:
    """The official accuracy for four answers or more."""
    prediction, *answers = (text.replace("\n", " ").replace("\t", " ").strip() for text in (prediction, *answers))
    if any(answer != answers[0] for answer in answers):
        prediction, *answers = map(by_signs, (prediction, *answers))
    scores = []
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        scores.append(min(Fraction(1), Fraction(others.count(prediction), 3)))
    return float(sum(scores) / len(scores))
