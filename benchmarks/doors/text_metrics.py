"""common.metrics.text: random texts of many scripts; every number is finite, and 100 for texts equal to a reference."""

import math
from pathlib import Path
from random import Random

from common.metrics.text import text_metric_settings, text_metrics

SCRIPTS = (  # first and last character
    *((0x61, 0x7A), (0x410, 0x42F), (0x621, 0x65F), (0x900, 0x963)),  # Latin, Cyrillic, Arabic, Devanagari
    *((0xE01, 0xE5B), (0x1780, 0x17D3), (0x3041, 0x30FF), (0x4E00, 0x9FA5)),  # Thai, Khmer, kana, Chinese
    *((0x20000, 0x200FF), (0xAC00, 0xD7A3), (0x300, 0x36F), (0x20, 0x2F)),  # rare Chinese, Korean, marks, signs
    *((0x1F300, 0x1F64F), (0x2000, 0x2029)),  # emoji, spaces and line ends
)


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
