"""What a model's words and probabilities say: strictly read, never guessed.

new text -> score 1..10 or None, analysis;  probabilities of what may come next -> expected score, P(Yes)
"""

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
    """The whole number 1..10 that an answer gives as its score, or None.

    Refused, not bent: 0, 11, -3, 7.5, 3 out of 5, and ranges as in '1-10' or '[1 to 10]'. The first number that is
    called a score counts, else one that the answer begins with.
    """
    found = _LABELLED.search(answer) or _BARE.match(answer.strip())
    if not found:
        return None
    behind = found.string[found.end() :]
    scale = _OUT_OF.match(behind)
    if _RANGE.match(behind) or (scale and int(scale.group(1)) != SCORES[-1]):
        return None
    number = found.group(1)
    return int(number) if re.fullmatch(r"\+?\d+", number) and int(number) in SCORES else None


def parse_analysis(answer: str) -> str:
    """What follows 'Analysis:', else what follows the line of the score, else the whole answer."""
    if found := _ANALYSIS.search(answer):
        return answer[found.end() :].strip()
    found = _LABELLED.search(answer)
    rest = answer[found.end() :].partition("\n")[2].strip() if found else ""
    return rest or answer.strip()


def continuations(
    begun: str, options: Sequence[str], tokenise: Callable[[str], list[int]]
) -> tuple[list[int], list[list[int]]]:
    """A prompt whose answer is begun, ways to go on -> ids that all ways share, the ids by which each way goes on.

    Some tokenizers join a space to the digit behind it and some do not, so whole texts are tokenised and compared.
    """
    rows = [tokenise(begun + option) for option in options]
    compared = rows if len(rows) > 1 else [rows[0], tokenise(begun.rstrip())]
    shared = 0
    while shared < min(map(len, compared)) and len({row[shared] for row in compared}) == 1:
        shared += 1
    return rows[0][:shared], [row[shared:] for row in rows]


def needed_prefixes(options: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Every beginning of an option after which a probability is asked for; () first."""
    return sorted({tuple(option[:length]) for option in options for length in range(len(option))}, key=len)


def option_probabilities(
    options: Sequence[Sequence[int]], next_log_probability: Callable[[tuple[int, ...]], torch.Tensor]
) -> torch.Tensor:
    """Probability that an answer begins with each option, and with no longer one: '1' is not the '1' of '10'.

    next_log_probability(ids written) -> (vocabulary,) for each of needed_prefixes -> (options,)
    """
    whole = {}
    for option in options:
        steps = [next_log_probability(tuple(option[:place]))[token] for place, token in enumerate(option)]
        whole[tuple(option)] = torch.stack(steps).sum().exp()
    longer = [
        sum(value for other, value in whole.items() if len(other) > len(option) and other[: len(option)] == option)
        for option in whole
    ]
    return torch.stack([value - more for value, more in zip(whole.values(), longer)]).clamp(min=0)


def expected_score(probabilities: torch.Tensor) -> float:
    """Probabilities (10,) of the scores 1..10 -> their mean, each weighed by its share."""
    share = probabilities.double() / probabilities.double().sum().clamp(min=1e-300)
    return float((share * torch.tensor(SCORES, dtype=torch.float64)).sum())
