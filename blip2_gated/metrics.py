"""A model's answers to the questions of a data set, and their metrics.

dataset (N samples) -> batches of left-padded prompts -> generated texts -> N predictions in their order
predictions, references (N texts) -> exact match, VQA accuracy, BLEU, ROUGE, style hit rate; overall and by question
type, compared with the VQA accuracy of a question-only baseline
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import default_collate

from blip2_gated.dataset import VqaDataset, VqaSample
from blip2_gated.images import TowerFeatures
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from common.cli.progress_bar import progress_bar
from common.metrics.text import text_metrics

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(WORDS)}}
ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Prediction:
    """A question with the model's answer."""

    sample: VqaSample
    text: str

    @property
    def question_id(self) -> int | str:
        """As in the table, or the row's number."""
        return self.sample.number if self.sample.question_id is None else self.sample.question_id

    def as_row(self) -> dict[str, Any]:
        """One line of predictions.jsonl. correct: None without a true answer."""
        answer = self.sample.answer
        return {
            **{name: value for name, value in asdict(self.sample).items() if name != "path"},
            "question_id": self.question_id,
            "prediction": self.text,
            "correct": normalise_answer(self.text) == normalise_answer(answer) if answer else None,
        }


def answer_samples(
    model: Blip2OPTGated, dataset: VqaDataset, limit: int = 0, batch_size: int = 32, quiet: bool = True, **options: Any
) -> list[Prediction]:
    """limit: number of samples, evenly spread over the data set; 0 = all. options: of generation."""
    count = min(limit or len(dataset), len(dataset))
    samples = [dataset.samples[position * len(dataset) // count] for position in range(count)]
    predictions = []
    for start in progress_bar(range(0, count, batch_size), "answering", unit="batch", quiet=quiet):
        batch = samples[start : start + batch_size]
        inputs = default_collate([dataset.image_inputs(sample) for sample in batch])
        inputs = {name: value.to(model.mean.device) for name, value in inputs.items()}
        images = inputs["image"] if "image" in inputs else TowerFeatures(inputs["patches"], inputs.get("pooled"))
        predictions += map(
            Prediction, batch, model.predict_answers(images, [sample.question for sample in batch], **options)
        )
    return predictions


def normalise_answer(text: str) -> str:
    """As in the VQA evaluation (Antol et al. 2015), without its table of contractions: lower case, numbers as digits,
    no articles, no punctuation."""
    text = re.sub(r"(?<=\d)[,.](?=\d)", "", text.lower().strip())
    words = re.sub(r"[^\w\s]", " ", text).split()
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """min(agreeing annotators / 3, 1), averaged over leaving each annotator out; with fewer than four references one
    that agrees is enough."""
    normalised = normalise_answer(prediction)
    agree = [normalise_answer(reference) == normalised for reference in references]
    if len(agree) < 4:
        return float(any(agree))
    return sum(min((sum(agree) - agrees) / 3, 1.0) for agrees in agree) / len(agree)


class QuestionOnlyBaseline:
    """baseline(question) -> the most frequent training answer to the same question, or, if it does not occur, to the
    questions that share the longest beginning with it. samples: of the training set, at least one.
    """

    def __init__(self, samples: Iterable[VqaSample]):
        self._answers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for sample in samples:
            words = tuple(sample.question.split())
            for count in range(len(words) + 1):
                self._answers[words[:count]][sample.answer] += 1

    def __call__(self, question: str) -> str:
        words = tuple(question.split())
        while words not in self._answers:
            words = words[:-1]
        return self._answers[words].most_common(1)[0][0]


def measure_answers(
    predictions: Sequence[Prediction], styles: StyleVocabulary, baseline: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """-> {"all": scores, "by_type": {type: scores}}, everything in percent.

    style_hit_rate: share of the questions whose answer names a style whose prediction names any style; style_accuracy:
    names the right one; question_only: VQA accuracy of `baseline`, if there is one.
    """
    by_type = {
        question_type: _scores(
            [prediction for prediction in predictions if prediction.sample.type == question_type], styles, baseline
        )
        for question_type in sorted({prediction.sample.type for prediction in predictions})
    }
    return {"all": _scores(predictions, styles, baseline), "by_type": by_type}


def _scores(
    predictions: Sequence[Prediction], styles: StyleVocabulary, baseline: Callable[[str], str] | None
) -> dict[str, float]:
    def percent(values: Sequence[float | bool]) -> float:
        return 100 * sum(values) / len(values)

    pairs = [(prediction.text, prediction.sample.answer) for prediction in predictions]
    scores = {
        "questions": len(predictions),
        "exact_match": percent([text.strip().lower() == answer.strip().lower() for text, answer in pairs]),
        "vqa_accuracy": percent([vqa_accuracy(text, [answer]) for text, answer in pairs]),
        **text_metrics([text for text, _ in pairs], [[answer] for _, answer in pairs]),
    }
    if all(len(answer.split()) < 4 for _, answer in pairs):  # BLEU counts runs of four words: always 0
        del scores["bleu"]
    if baseline:
        samples = [prediction.sample for prediction in predictions]
        scores["question_only"] = percent(
            [vqa_accuracy(baseline(sample.question), [sample.answer]) for sample in samples]
        )
    named = [(set(styles.named_in(text)), set(styles.named_in(answer))) for text, answer in pairs]
    if named := [(predicted, true) for predicted, true in named if true]:
        scores["style_hit_rate"] = percent([bool(predicted) for predicted, _ in named])
        scores["style_accuracy"] = percent([predicted == true for predicted, true in named])
    return scores
