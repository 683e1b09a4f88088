"""Scores of a trained model's answers to the questions of a conversations file.

    python vitp/evaluate.py --model_name_or_path work_dirs/mine --data test.jsonl [--train_data train.jsonl]

Each first question is asked. A record with "facts" (words) scores the share of them in the answer, any other 1 for an
answer equal to the reference; "kind" groups questions, which otherwise group by their text. The question-only baseline
answers with what is most frequent for a kind in --train_data. --output gets the scores and every answer as JSON.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from statistics import fmean

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from transformers.utils import logging

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.io import open_image
from common.text.conversations import IMAGE, read_conversations
from common.text.files import write_json
from common.text.schema import check_type
from common.text.values import text_of
from common.training.device import choose_device
from common.training.skip_log import check_skip_rate, report_skipped
from vitp.inference import VQAPredictor


@dataclass(frozen=True)
class QuestionSample:
    images: tuple[Path, ...]
    question: str
    reference: str
    kind: str
    facts: tuple[str, ...] = ()
    system: str | None = None
    key: str = ""  # file and line

    def score(self, answer: str) -> float:
        """Share of the facts that the answer names, in any case; without facts, 1 for the reference word for word."""
        if not self.facts:
            return float(answer == self.reference)
        return fmean(bool(re.search(rf"\b{re.escape(fact)}\b", answer, re.IGNORECASE)) for fact in self.facts)


def read_samples(path: str | Path, image_dir: str | Path = "") -> tuple[list[QuestionSample], dict[str, str]]:
    """-> samples, {skipped record: reason}; arguments as of read_conversations"""
    conversations, skipped = read_conversations(path, image_dir)
    samples = []
    for conversation in conversations:
        record, first = conversation.record, conversation.first(1)
        question, reference = first.turns[0]
        try:
            kind = text_of(record.get("kind") or question.replace(IMAGE, "").strip())
            facts = check_type(record.get("facts") or [], list[str], "facts")
        except ValueError as error:
            skipped[conversation.key] = str(error)
            continue
        samples.append(
            QuestionSample(
                first.images, question, reference.strip(), kind, tuple(facts), conversation.system, conversation.key
            )
        )
    return samples, skipped


def question_only_answers(samples: Iterable[QuestionSample]) -> dict[str, str]:
    """{kind: the answer to give without an image}: the most frequent reference, or the most frequent of each fact."""
    groups = defaultdict(list)
    for sample in samples:
        groups[sample.kind].append(sample)
    return {
        kind: " ".join(map(_most_frequent, zip(*(sample.facts for sample in group)))).capitalize()
        if group[0].facts
        else _most_frequent(sample.reference for sample in group)
        for kind, group in groups.items()
    }


def evaluate(
    predictor: VQAPredictor,
    samples: Sequence[QuestionSample],
    baseline: dict[str, str],
    batch_size: int = 16,
    max_new_tokens: int = 64,
    skipped: dict[str, str] | None = None,
) -> tuple[dict, list[dict]]:
    """-> {"accuracy", "question_only", "count", "questions": {kind: the same three}}, answers

    baseline: of question_only_answers; {} leaves question_only away. skipped: gets {sample: reason} of those whose
    image or question cannot be used; without it they are an error.
    """
    answered: list[tuple[QuestionSample, str]] = []
    for start in progress_bar(range(0, len(samples), batch_size), "answering questions"):
        batch, requests = [], []
        for sample in samples[start : start + batch_size]:
            try:
                if skipped is not None:
                    predictor.prompt(sample.question, len(sample.images), sample.system)  # checks them
                requests.append(([open_image(image) for image in sample.images], sample.question))
                batch.append(sample)
            except (ValueError, OSError) as error:
                if skipped is None:
                    raise
                skipped[sample.key] = str(error)
        if batch:
            systems = [sample.system for sample in batch]
            options = {"systems": systems} if any(system is not None for system in systems) else {}
            answered += zip(batch, predictor(requests, max_new_tokens=max_new_tokens, **options), strict=True)
    if not answered:
        raise ValueError("no usable question")
    scores = defaultdict(list)
    for sample, answer in answered:
        scores[sample.kind].append((sample.score(answer), sample.score(baseline.get(sample.kind, ""))))

    def means(pairs: list[tuple[float, float]]) -> dict:
        accuracy, question_only = (sum(column) / len(pairs) for column in zip(*pairs))
        return {"accuracy": accuracy, **({"question_only": question_only} if baseline else {}), "count": len(pairs)}

    report = means([pair for pairs in scores.values() for pair in pairs])
    report["questions"] = {kind: means(pairs) for kind, pairs in scores.items()}
    return report, [
        {
            "images": [str(image) for image in sample.images],
            "question": sample.question.replace(IMAGE, "").strip(),
            "reference": sample.reference,
            "answer": answer,
            "score": sample.score(answer),
        }
        for sample, answer in answered
    ]


def format_report(report: dict) -> str:
    def line(name: str, part: dict) -> str:
        baseline = f" (question only {part['question_only']:.0%})" if "question_only" in part else ""
        return f"{name:12} {part['accuracy']:4.0%}{baseline} of {part['count']}"

    return "\n".join([line("accuracy", report), *(f"  {line(*item)}" for item in report["questions"].items())])


@tool
def main(
    *,
    model_name_or_path: str,  # a folder that train.py wrote, or an InternVL
    data: Path,  # .json or .jsonl of conversations
    image_dir: str = "",  # folder that image paths are relative to; otherwise that of --data
    train_data: Path | None = None,  # conversations the model was trained on, for the question-only baseline
    output: Path | None = None,  # .json of scores and answers
    conv_style: str | None = None,  # internvl2_5, chat, or a .jinja file; otherwise the folder's own template
    max_dynamic_patch: PositiveInt | None = None,  # most tiles of an image; otherwise the model's own
    max_new_tokens: PositiveInt = 64,  # length of an answer
    batch_size: PositiveInt = 16,  # questions answered together
    max_skipped: ClosedUnitInterval = 0.05,  # share of unusable records that is allowed
    device: str = "auto",
    json: bool = False,
) -> dict:
    samples, skipped = read_samples(data, image_dir)
    total = len(samples) + len(skipped)
    check_skip_rate(skipped, total, max_skipped, data)
    baseline = question_only_answers(read_samples(train_data, image_dir)[0]) if train_data else {}
    logging.disable_progress_bar()
    predictor = VQAPredictor(model_name_or_path, choose_device(device), max_dynamic_patch, conv_style)
    report, answers = evaluate(predictor, samples, baseline, batch_size, max_new_tokens, skipped)
    report_skipped(skipped, listed="")
    check_skip_rate(skipped, total, max_skipped, data)
    if output:
        write_json(output, {**report, "answers": answers})
    print(dumps(report, ensure_ascii=False) if json else format_report(report))
    return report


def _most_frequent(values: Iterable[str]) -> str:
    return Counter(values).most_common(1)[0][0]


if __name__ == "__main__":
    run_script(main)
