"""Scores from a model's text and probabilities, parsed strictly and never guessed.

new text -> score 1..10 or None, analysis;  probabilities of the next tokens -> expected score, P(Yes)
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from llava.score_patterns import (
    COUNTED,
    DENIED,
    EXPLAINED,
    FINAL_WORDS,
    GAP,
    HAS_SIGN,
    LABEL,
    LABEL_SCALE,
    MARKUP,
    NUMBER,
    OTHER_WORDS,
    PLAIN_WORDS,
    RANGE,
    REASONING_END,
    REASONING_START,
    SCALES,
    SENTENCE_END,
    UNLABELLED,
    UNUSABLE,
    Rank,
)

SCORES = tuple(range(1, 11))
SENTENCE = 300  # characters of the longest
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
LABELLED_NUMBER = re.compile(NUMBER)
_ANALYSIS = re.compile(r"(?:analysis|reasons?|reasoning|explanation|分析|理由)[*_]*\s*[:：][*_]*\s*", re.IGNORECASE)


class Statement(NamedTuple):
    place: int  # of the number in the text
    rank: Rank
    value: float | None  # from 1 to 10; None where the number is no score, as in 7-8, 80 % or 4 stars


def parse_score(answer: str) -> int | float | None:
    """The score from 1 to 10 that an answer states last, or None; a float only where it states a fraction, as 7.5.

    What is called final or overall counts before other scores, these before numbers in sentences ('8/10'). Another
    scale is converted where it is stated: 4/5 is 8, 85 out of 100 is 8.5. None for 0, 11, -3, ranges as in '1-10',
    percent, stars, and scores of several aspects that differ.
    """
    text = final_answer(answer).translate(FULL_WIDTH)
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    statements = sorted([*_labelled(text.strip()), *_unlabelled(text.strip())], key=lambda item: item[:2])
    if not statements:
        return None
    rank = max(statement.rank for statement in statements)
    values = [statement.value for statement in statements if statement.rank == rank]
    if rank < Rank.SCORE and len(set(values)) > 1:
        return None
    return int(values[-1]) if values[-1] is not None and values[-1].is_integer() else values[-1]


def final_answer(answer: str) -> str:
    """What follows the reasoning; nothing where that is not finished."""
    return REASONING_START.split(REASONING_END.split(answer)[-1])[0].strip()


def _labelled(text: str) -> Iterator[Statement]:
    """'Score: 8', 'Rating (1-5): 4', '评分为8分', 'a score of 8'."""
    for label in LABEL.finditer(text):
        word = (label["word"] or label["prefix"] or label["line"] or "").lower()
        scale = LABEL_SCALE.match(text, label.end())
        tops = [int(number) for number in re.findall(r"\d+", scale[0])] if scale else []
        gap, number = _number(text, scale.end() if scale else label.end())
        if not number and not (scale and len(tops) > 1):  # what looked like a scale is the score itself: 'Score (8)'
            scale, (gap, number) = None, _number(text, label.end())
        if not number or word in OTHER_WORDS:
            continue
        signed, behind = HAS_SIGN.search(gap), text[number.end() : number.end() + 9]
        is_rubric = not signed and re.match(r"\s*:", behind)  # 'Score 1: does not fit'
        is_list = "\n" in gap and re.match(r"[.)]\s+\S", behind)
        if is_rubric or is_list or (not signed and _is_supposed(text, label.start(), number.end())):
            continue
        several = "[" in gap and re.match(r"\s*,\s*[\"']?\d", behind)
        value = None if several else _value(text, number, max(tops) if scale and tops else SCORES[-1])
        rank = Rank.FINAL if word in FINAL_WORDS else Rank.SCORE if word in PLAIN_WORDS else Rank.PART
        yield Statement(number.start(), rank, value)


def _number(text: str, start: int) -> tuple[str, re.Match[str] | None]:
    """-> signs and words behind a label, the number behind these."""
    gap = GAP.match(text, start)
    end = gap.end() if gap else start
    return text[start:end], LABELLED_NUMBER.match(text, end)


def _unlabelled(text: str) -> Iterator[Statement]:
    """'[[8]]', 'I would rate it 8 out of 10', '8分', an answer that begins or ends with its number."""
    for rank, pattern in UNLABELLED:
        for match in pattern.finditer(text):
            behind = text[match.end("number") : match.end("number") + 9]
            is_list = match["number"] == "1" and re.match(r"[.)]\s+\S", behind)
            if is_list or _is_supposed(text, match.start(), match.end("number")):
                continue
            several = rank == Rank.FINAL and re.match(r"\s*,\s*\d", behind)
            top = int(match.groupdict().get("top") or SCORES[-1])
            yield Statement(match.start("number"), rank, None if several else _value(text, match, top))


def _is_supposed(text: str, start: int, end: int) -> bool:
    """Whether the sentence denies or explains a score instead of giving one: 'not a 10', 'a score of 10 would need'."""
    before = SENTENCE_END.split(text[max(0, start - SENTENCE) : start])[-1]
    scale = _scale(text, end)
    behind = scale.end() if scale else end
    return bool(DENIED.search(before) or EXPLAINED.match(text, behind) or (scale and COUNTED.match(text, behind)))


def _scale(text: str, end: int) -> re.Match[str] | None:
    """What states the scale of a number that ends there: '/10', 'out of 10', '（满分10分）'."""
    return next((scale for pattern in SCALES if (scale := pattern.match(text, end))), None)


def _value(text: str, match: re.Match[str], top: int) -> float | None:
    """The number of a match on a scale from 1 to 10. top: of its own scale, unless the text behind it names one."""
    end = match.end("number")
    if scale := _scale(text, end):
        top, end = int(scale["top"]), scale.end()
        if re.match(r"[/.,]?\d", text[end : end + 2]):  # a date
            return None
    elif UNUSABLE.match(text, end):
        return None
    number = float(match["number"].replace(",", ".").replace("−", "-"))
    if RANGE.match(text, end) or not 0 < number <= top:
        return None
    value = number * SCORES[-1] / top
    return value if SCORES[0] <= value <= SCORES[-1] else None


def parse_analysis(answer: str) -> str:
    """What follows 'Analysis:', otherwise what follows the line of the score, otherwise the whole answer; without
    reasoning in <think>."""
    answer = final_answer(answer) or answer
    if match := _ANALYSIS.search(answer):
        return answer[match.end() :].strip()
    label = LABEL.search(answer)
    rest = answer[label.end() :].partition("\n")[2].strip() if label else ""
    return rest or answer.strip()


def split_continuations(
    prompt: str, options: Sequence[str], tokenize: Callable[[str], list[int]]
) -> tuple[list[int], list[list[int]]]:
    """A prompt with a begun answer, its continuations -> ids that all share, the ids that are each one's own.

    Some tokenizers join a space to the digit behind it and some do not, so whole texts are tokenised and compared. A
    line break that begins the answer's turn belongs to the prompt.
    """
    rows = [tokenize(prompt + option) for option in options]
    compared = rows if len(rows) > 1 else [rows[0], tokenize(prompt.rstrip(" "))]
    shared = len(os.path.commonprefix(compared))  # of any sequences, not of paths alone
    return rows[0][:shared], [row[shared:] for row in rows]


def needed_prefixes(options: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Every beginning of an option whose next token's probability is needed; () first."""
    return sorted({tuple(option[:length]) for option in options for length in range(len(option))}, key=len)


def option_probabilities(
    options: Sequence[Sequence[int]], next_log_probability: Callable[[tuple[int, ...]], torch.Tensor]
) -> torch.Tensor:
    """Probability that an answer begins with each option, and with no longer one: '1' is not the '1' of '10'.

    next_log_probability(ids so far) -> (vocabulary,) for each of needed_prefixes -> (options,)
    """
    begins = {}
    for option in map(tuple, options):
        steps = [next_log_probability(option[:length])[token] for length, token in enumerate(option)]
        begins[option] = torch.stack(steps).sum().exp()
    longer = [
        sum(value for other, value in begins.items() if len(other) > len(option) and other[: len(option)] == option)
        for option in begins
    ]
    return torch.stack([value - more for value, more in zip(begins.values(), longer)]).clamp(min=0)


def expected_score(probabilities: torch.Tensor) -> float:
    """Probabilities (10,) of the scores 1..10 -> their mean, weighted by probability."""
    share = probabilities.double() / probabilities.double().sum().clamp(min=1e-300)
    return float((share * torch.tensor(SCORES, dtype=torch.float64)).sum())
