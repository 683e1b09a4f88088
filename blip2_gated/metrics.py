"""A model's answers to the questions of a data set, and their metrics.

dataset (N samples) -> batches of left-padded prompts -> generated texts -> N predictions in their order
predictions, references (N texts) -> exact match, VQA accuracy, BLEU, ROUGE, style hit rate; overall and by question
type, compared with the VQA accuracy of a question-only baseline
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import default_collate

from blip2_gated.dataset import VqaDataset
from blip2_gated.images import TowerFeatures
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from blip2_gated.vqa_tables import VqaSample
from common.cli.progress_bar import progress_bar
from common.metrics.text import WordTokenizer, text_metric_settings, text_metrics
from common.metrics.vqa import normalise_answer, vqa_accuracy

DEFINITIONS = {
    "vqa_accuracy": "official evaluator of VQA v2, for questions with four answers or more; with fewer, this "
    "repository's: one match after the official normalisation is enough",
    "exact_match": "this repository's: equal to the answer, or to the most frequent of several, ignoring case",
}


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
        """One line of predictions.jsonl. correct: equal to `answer` after normalisation; None without a true answer."""
        answer = self.sample.answer
        return {
            **{name: value for name, value in asdict(self.sample).items() if name not in ("path", "place")},
            "question_id": self.question_id,
            "prediction": self.text,
            "correct": normalise_answer(self.text) == normalise_answer(answer) if answer else None,
            "vqa_accuracy": vqa_accuracy(self.text, self.sample.references) if answer else None,
        }


def official_results(predictions: Sequence[Prediction], samples: Sequence[VqaSample]) -> list[dict[str, Any]]:
    """Results as the official evaluator of VQA v2 takes them: an answer for the id of every sample, each once.

    samples: all of the table, since the evaluator refuses a file that lacks a question; a skipped one has an
    empty answer. Questions with the same id have the first one's answer. Without any id, row numbers stand in.
    """
    has_ids = any(sample.question_id is not None for sample in samples)

    def key(sample: VqaSample) -> int | str | None:
        return sample.question_id if has_ids else sample.number

    answers = {key(prediction.sample): prediction.text for prediction in reversed(predictions)}
    ids = dict.fromkeys(map(key, samples))
    return [{"question_id": name, "answer": answers.get(name, "")} for name in ids if name is not None]


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
        images = TowerFeatures(**inputs) if "patches" in inputs else model.features(**inputs)
        predictions += map(
            Prediction, batch, model.predict_answers(images, [sample.question for sample in batch], **options)
        )
    return predictions


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
    """-> {"all": scores, "by_type": {type: scores}}, everything in percent; "definitions" of the scores.

    style_hit_rate: share of the questions whose answer names a style whose prediction names any style; style_accuracy:
    names the right one; question_only: VQA accuracy of `baseline`, if there is one.
    """
    by_type = {
        question_type: _scores(
            [prediction for prediction in predictions if prediction.sample.type == question_type], styles, baseline
        )
        for question_type in sorted({prediction.sample.type for prediction in predictions})
    }
    return {
        "all": _scores(predictions, styles, baseline),
        "by_type": by_type,
        "definitions": DEFINITIONS | text_metric_settings([prediction.sample.references for prediction in predictions]),
    }


def _scores(
    predictions: Sequence[Prediction], styles: StyleVocabulary, baseline: Callable[[str], str] | None
) -> dict[str, float]:
    def percent(values: Sequence[float | bool]) -> float:
        return 100 * sum(values) / len(values)

    samples = [prediction.sample for prediction in predictions]
    texts, references = [prediction.text for prediction in predictions], [sample.references for sample in samples]
    pairs = [(prediction.text, prediction.sample.answer) for prediction in predictions]
    scores = {
        "questions": len(predictions),
        "exact_match": percent([text.strip().lower() == answer.strip().lower() for text, answer in pairs]),
        "vqa_accuracy": percent(list(map(vqa_accuracy, texts, references))),
        **text_metrics(texts, references),
    }
    split = WordTokenizer().tokenize
    if all(len(split(answer)) < 4 for answers in references for answer in answers):  # BLEU is about runs of four words
        del scores["bleu"]
    if baseline:
        scores["question_only"] = percent(
            [vqa_accuracy(baseline(sample.question), sample.references) for sample in samples]
        )
    named = [(set(styles.named_in(text)), set(styles.named_in(answer))) for text, answer in pairs]
    if named := [(predicted, true) for predicted, true in named if true]:
        scores["style_hit_rate"] = percent([bool(predicted) for predicted, _ in named])
        scores["style_accuracy"] = percent([predicted == true for predicted, true in named])
    return scores
