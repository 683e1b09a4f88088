"""Scores from a model's text and probabilities, parsed strictly and never guessed.

new text -> score 1..10 or None, analysis;  probabilities of the next tokens -> expected score, P(Yes)
"""

import os
import re
from collections.abc import Callable, Sequence

import torch

SCORES = tuple(range(1, 11))
_NUMBER = r"([+-]?\d+(?:[.,]\d+)?)"
_OPENING = r"[\s:：=*_`\[(（【]*"
_LABELLED = re.compile(rf"(?:score|rating|评分|得分|分数)(?:\s+is|\s+of|是|为)?{_OPENING}{_NUMBER}", re.IGNORECASE)
# An answer that begins with its number: '8', '8/10', '8. Because', not '8 cats'.
_BARE = re.compile(rf"^{_OPENING}{_NUMBER}(?=[ \t*_]*(?:$|\n|[\])）】/.。,，;；:：分-]|out\s+of))")
_RANGE = re.compile(r"\s*(?:-|–|—|~|to\b|or\b|到|至)\s*\d")
_OUT_OF = re.compile(r"[\s*_\])）】]*(?:/|out\s+of|分之)\s*(\d+)", re.IGNORECASE)
_ANALYSIS = re.compile(r"(?:analysis|reasons?|reasoning|explanation|分析|理由)[*_]*\s*[:：][*_]*\s*", re.IGNORECASE)


def parse_score(answer: str) -> int | None:
    """The whole number 1..10 that an answer states as its score, or None.

    Refused: 0, 11, -3, 7.5, 3 out of 5, and ranges as in '1-10' or '[1 to 10]'. The first number that is called a score
    counts, otherwise one that the answer begins with.
    """
    match = _LABELLED.search(answer) or _BARE.match(answer.strip())
    if not match:
        return None
    number, rest = match[1], match.string[match.end() :]
    scale = _OUT_OF.match(rest)
    if _RANGE.match(rest) or (scale and int(scale[1]) != SCORES[-1]):
        return None
    return int(number) if re.fullmatch(r"\+?\d+", number) and int(number) in SCORES else None


def parse_analysis(answer: str) -> str:
    """What follows 'Analysis:', otherwise what follows the line of the score, otherwise the whole answer."""
    if match := _ANALYSIS.search(answer):
        return answer[match.end() :].strip()
    match = _LABELLED.search(answer)
    rest = answer[match.end() :].partition("\n")[2].strip() if match else ""
    return rest or answer.strip()


def split_continuations(
    prompt: str, options: Sequence[str], tokenize: Callable[[str], list[int]]
) -> tuple[list[int], list[list[int]]]:
    """A prompt with a begun answer, its continuations -> ids that all share, the ids that are each one's own.

    Some tokenizers join a space to the digit behind it and some do not, so whole texts are tokenised and compared.
    """
    rows = [tokenize(prompt + option) for option in options]
    compared = rows if len(rows) > 1 else [rows[0], tokenize(prompt.rstrip())]
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
