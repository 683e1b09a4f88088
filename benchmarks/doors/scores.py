"""llava.score_parsing: answers of random parts with a known score among other numbers."""

from pathlib import Path
from random import Random

from llava.score_parsing import parse_score

# fmt: off
BEFORE = (
    "", "", "The image shows {n} cats.\n", "<think>Score: {n}, or {n}/10?</think>\n",
    "Score 1: bad\nScore 10: good\n\n",
    "1. The cat is there.\n2. The mat is not.\n\n", "A score of {n} would need a hat. ", "Score: {n}-10\n",
    "图中有{n}只猫。\n", "Reference [{n}] says so.\n", "It was taken on 2024-05-0{n}.\n", "Maximum score: 10\n",
    "Half of {n} objects fit.\n",
)
LABELS = (
    "Score",
    "SCORE",
    "**Score**",
    "Rating",
    "Final score",
    "My score",
    "评分",
    "得分",
    "スコア",
    '{"score"',
    "- Score",
)
SCALES = ("", "", "", " (1-10)", " [1-10]", " (out of 10)", "（1-10）", "（满分10分）", " (1 = bad, 10 = good)")
SIGNS = (": ", ":", "：", " = ", " - ", ":\n", ": **", " -> ", ': "', ": [", ": (", " is ", ": about ")
BEHIND = (
    "", "", ".", "\n", "/10", " / 10", " out of 10", "/10.", "分", "**", "**/10", " points", "]",
    '"', "}", ")", "／１０",
    " (good)", ", since", " because", " %", "%", "-{n}", " to {n}", " stars", ".{n}.{n}", "th", " or {n}", "±{n}", "⭐",
)
AFTER = (
    "", "", "\nAnalysis: {n} of {n} objects are there.", "\nIt is not a {n}, because the hat is red.",
    "\nReasons:\n1. The cat\n2. The mat", "\nFor a {n} it would need a hat.", "\n理由：有{n}只猫。",
    "\n\n{n} cats are there.",
    "\nConfidence: {n}0%", "\n(v{n}.{n}.1, 1{n}:30)", "\nConfidence score: {n}",
)
# fmt: on
WIDE = {ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"}
UNUSABLE = ("%", "-", " to", "stars", ".{", "th", " or", "±", "⭐")


def trial(random: Random, folder: Path) -> str:
    """'read' is the known score, 'skipped' is None."""
    score = random.randint(1, 10)
    written = random.choice(
        (str(score), str(score), f"{score}.0", str(score).translate({n: n + 0xFEE0 for n in range(48, 58)}))
    )
    behind = random.choice(BEHIND)
    parts = (random.choice(part) for part in (BEFORE, LABELS, SCALES, SIGNS))
    answer = _filled(random, "".join(parts) + written.replace("{", "") + behind + random.choice(AFTER))
    found = parse_score(answer)
    unusable = any(sign in behind for sign in UNUSABLE)
    assert found is None or (found == score and not unusable), f"{found} of {answer!r}, not {score}"
    assert parse_score(_filled(random, random.choice(AFTER) + random.choice(AFTER))) is None
    return "skipped" if found is None else "read"


def _filled(random: Random, text: str) -> str:
    while "{n}" in text:
        text = text.replace("{n}", str(random.randint(1, 9)), 1)
    return text
