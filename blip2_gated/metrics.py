"""How right are the answers?

predictions, references (N texts) -> exact match, VQA accuracy, BLEU, ROUGE, style hit rate; whole and by question type,
beside the VQA accuracy of who answers without looking at the image
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blip2_gated.dataset import Sample
from blip2_gated.style_vocabulary import StyleVocabulary
from common.metrics.text import text_metrics

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(WORDS)}}
ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Answered:
    """One question with what was said."""

    number: int
    image: str
    question: str
    answer: str
    prediction: str
    type: str
    style: str


def normalise_answer(text: str) -> str:
    """As the VQA evaluation does (Antol et al. 2015): small letters, digits, no articles and no punctuation but inside
    numbers. Its table of contractions is left out."""
    text = re.sub(r"(?<=\d)[,.](?=\d)", "", text.lower().strip())
    words = re.sub(r"[^\w\s]", " ", text).split()
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """min(agreeing people / 3, 1), averaged over leaving each person out; with fewer than four references one that
    agrees is enough."""
    said = normalise_answer(prediction)
    agree = [normalise_answer(reference) == said for reference in references]
    if len(agree) < 4:
        return float(any(agree))
    return sum(min((sum(agree) - one) / 3, 1.0) for one in agree) / len(agree)


class QuestionOnlyBaseline:
    """guess(question) -> what is best said without looking: the commonest answer in training to the same question, or,
    where nobody asked it, to those that begin with the most of its words. samples: of the training set, at least one.
    """

    def __init__(self, samples: Iterable[Sample]):
        self._answers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for one in samples:
            words = tuple(one.question.split())
            for count in range(len(words) + 1):
                self._answers[words[:count]][one.answer] += 1

    def __call__(self, question: str) -> str:
        words = tuple(question.split())
        while words not in self._answers:
            words = words[:-1]
        return self._answers[words].most_common(1)[0][0]


def measure_answers(
    answered: Sequence[Answered], styles: StyleVocabulary, guess: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """-> {"all": scores, "by_type": {type: scores}}, everything in percent.

    style_hit_rate: of the questions whose answer names a style, the share whose prediction names any style;
    style_accuracy: that names the right one; blind: VQA accuracy of `guess`, where there is one.
    """
    types = sorted({one.type for one in answered})
    by_type = {kind: _scores([one for one in answered if one.type == kind], styles, guess) for kind in types}
    return {"all": _scores(answered, styles, guess), "by_type": by_type}


def _scores(
    answered: Sequence[Answered], styles: StyleVocabulary, guess: Callable[[str], str] | None
) -> dict[str, float]:
    def percent(values: Sequence[float | bool]) -> float:
        return 100 * sum(values) / len(values)

    scores = {
        "questions": len(answered),
        "exact_match": percent([one.prediction.strip().lower() == one.answer.strip().lower() for one in answered]),
        "vqa_accuracy": percent([vqa_accuracy(one.prediction, [one.answer]) for one in answered]),
        **text_metrics([one.prediction for one in answered], [[one.answer] for one in answered]),
    }
    if all(len(one.answer.split()) < 4 for one in answered):  # BLEU counts runs of four words: 0, whatever is said
        del scores["bleu"]
    if guess:
        scores["blind"] = percent([vqa_accuracy(guess(one.question), [one.answer]) for one in answered])
    about = [(styles.named_in(one.prediction), styles.named_in(one.answer)) for one in answered]
    about = [(said, true) for said, true in about if true]
    if about:
        scores["style_hit_rate"] = percent([bool(said) for said, _ in about])
        scores["style_accuracy"] = percent([set(said) == set(true) for said, true in about])
    return scores


def as_line(answered: Answered) -> dict[str, Any]:
    """One line of the predictions file."""
    right = normalise_answer(answered.prediction) == normalise_answer(answered.answer)
    return {**asdict(answered), "correct": right}
