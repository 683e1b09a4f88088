"""Compare models by their evaluations on the same questions, with the question-only baseline and the true answers.

    python blip2_gated/compare.py random=results/random expert=results/expert --show 8

NAME=FOLDER of each: evaluation.json, predictions.jsonl of evaluate.py -> right answers by question type, how the
trainings differed, and the answers to the first questions
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import NonNegativeInt
from typing_extensions import TypedDict

from common.cli.errors import run_script
from common.cli.text_table import align
from common.cli.tool_parser import tool
from common.text.schema import check_type, read_checked
from common.text.tables import read_records

HINT = "expected a folder of evaluate.py --output_dir"
PLACES = ("training_checkpoint_dir", "training_log_dir", "training_run_name")  # do not change what is trained
Rows = list[list[str]]


class Report(TypedDict):
    """evaluation.json of questions with answers."""

    settings: dict[str, Any]
    all: dict[str, float]
    by_type: dict[str, dict[str, float]]


class Row(TypedDict):
    """A line of predictions.jsonl."""

    image: str
    question: str
    answer: str
    prediction: str
    correct: bool


@tool
def main(
    evaluations: list[str],  # NAME=FOLDER of each model
    *,
    show: NonNegativeInt = 0,  # of the table's first questions, with the true answer and those of the models
) -> dict[str, Report]:
    reports, predictions = {}, {}
    for word in evaluations:
        name, _, folder = word.partition("=")
        if not (name and folder):
            raise ValueError(f"{word}: expected NAME=FOLDER")
        reports[name] = read_checked(Path(folder, "evaluation.json"), Report, HINT)
        records = read_records(Path(folder, "predictions.jsonl"), HINT)
        predictions[name] = [check_type(record, Row, place) for place, record in records]
    first, *others = [[(row["image"], row["question"]) for row in rows] for rows in predictions.values()]
    if any(questions != first for questions in others):
        raise ValueError(f"{', '.join(evaluations)}: evaluated on different questions")
    print(f"right answers in %\n{align(score_rows(reports))}")
    if others:
        settings = {name: report["settings"] for name, report in reports.items()}
        print(f"\nthe trainings differ in\n{align(setting_rows(settings))}")
    if show:
        print(f"\nthe table's first {min(show, len(first))} questions\n{align(answer_rows(predictions, show))}")
    return reports


def score_rows(reports: dict[str, Report]) -> Rows:
    """Columns: question types. Rows: the question-only baseline, if known, and the models."""
    columns = [{**report["by_type"], "all": report["all"]} for report in reports.values()]
    rows = [["", *(f"{name} ({scores['questions']})" for name, scores in columns[0].items())]]
    if "question_only" in columns[0]["all"]:
        rows.append(["question only", *(f"{scores['question_only']:.1f}" for scores in columns[0].values())])
    for name, types in zip(reports, columns):
        rows.append([name, *(f"{scores['vqa_accuracy']:.1f}" for scores in types.values())])
    return rows


def setting_rows(settings: dict[str, dict[str, Any]]) -> Rows:
    """Rows: settings whose values differ. Columns: the models."""
    names = {name: None for values in settings.values() for name in values if name not in PLACES}
    values = {name: [f"{model.get(name)}" for model in settings.values()] for name in names}
    differing = [[name, *texts] for name, texts in values.items() if len(set(texts)) > 1]
    return [["", *settings], *differing] if differing else [["nothing"]]


def answer_rows(predictions: dict[str, list[Row]], count: int) -> Rows:
    """Columns: image, question, true answer, answers of the models; wrong ones are marked."""
    rows = [["image", "question", "true answer", *predictions]]
    for same in list(zip(*predictions.values()))[:count]:
        answers = [row["prediction"] + ("" if row["correct"] else " (wrong)") for row in same]
        rows.append([same[0]["image"], same[0]["question"], same[0]["answer"], *answers])
    return rows


if __name__ == "__main__":
    run_script(main)
