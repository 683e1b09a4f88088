"""common.metrics.text: random texts of many scripts; every number is finite, and 100 for texts equal to a reference."""

import math
from pathlib import Path
from random import Random

from common.metrics.text import text_metric_settings, text_metrics

SCRIPTS = (
    "az",
    "АЯ",
    "α\u03c9",
    "\u0621\u065f",
    "\u0900\u0963",
    "\u0e01\u0e5b",
    "\u1780\u17d3",
    "あん",
    "アー",
    "一龥",
)
SCRIPTS += ("가힣", "\u0300\u036f", "０９", " /", "\U0001f300\U0001f64f", "\u2000\u2029", "\U00020000\U000200ff")


def trial(random: Random, folder: Path) -> str:
    references = [[_text(random) for _ in range(random.randint(1, 3))] for _ in range(random.randint(1, 3))]
    texts = [_text(random) for _ in references]
    scores = text_metrics(texts, references)
    assert all(math.isfinite(score) and -1e-9 <= score <= 100 + 1e-9 for score in scores.values()), (texts, scores)
    assert "|tok:" in text_metric_settings(references)["bleu"]
    equal = [random.choice(targets) for targets in references]
    if not all(text.strip() for text in equal):
        return "skipped"
    scores = text_metrics(equal, references)
    assert math.isclose(scores["bleu"], 100) and math.isclose(scores["rouge1"], 100), (equal, references, scores)
    return "read"


def _text(random: Random) -> str:
    def letter() -> str:
        return chr(random.randint(*random.choice(scripts)))

    scripts = random.sample(SCRIPTS, random.randint(1, 2))
    return "".join(" " if random.random() < 0.15 else letter() for _ in range(random.randint(0, 12)))
