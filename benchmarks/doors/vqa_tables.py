"""blip2_gated.dataset.read_samples: random questions in the formats of vqa_tables.py, read as they were written; the
same files with a few bytes changed, or with a value of another kind in one question."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.doors import mutated, refused
from blip2_gated.dataset import read_samples
from blip2_gated.vqa_tables import Columns, VqaSample

IMAGES = {7: "train2014/COCO_train2014_000000000007.jpg", 12: "sub folder/000000000012.png", "0a1f": "0a1f.jpg"}
SIGNS = "abc XYZ019,;\t\"'[]{}\\|\n\r\u0085\u2028\u00e9猫🙂"
ODD_VALUES = (None, 3, 2.5, float("nan"), True, [], {}, [None], [["a"]], [{"answer": 3}], "", "\ud83d", "\0", "x" * 300)
PAIR = ("v2_OpenEnded_mscoco_x_questions.json", "v2_mscoco_x_annotations.json")
Questions = list[dict[str, Any]]


def trial(random: Random, folder: Path) -> str:
    for name in IMAGES.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    questions = [_question(random, number) for number in range(random.randint(1, 4))]
    write, columns = random.choice(FORMATS), Columns(style="")
    if random.random() < 0.2:
        return _with_odd_value(random, folder, questions, columns)
    path = folder / write(questions, folder)
    if random.random() < 0.5:
        samples, skipped = read_samples(path, folder, "csv", columns)
        assert _read(samples) == _written(questions, folder) and not skipped, (write.__name__, samples, skipped)
        assert all(sample.answer in sample.references for sample in samples)
        return "read"
    changed = folder / random.choice([name for name in PAIR if write is vqa_v2] or [path.name])
    changed.write_bytes(mutated(random, changed.read_bytes()))
    try:
        samples, skipped = read_samples(path, folder, "csv", columns)
    except (ValueError, FileNotFoundError) as error:
        return refused(error, folder)
    assert all(sample.question.strip() and sample.answer.strip() and sample.path.is_file() for sample in samples)
    assert all(place.startswith(f"{path}:") and "\n" not in place for place in skipped)
    return "skipped" if skipped else "read"


def _with_odd_value(random: Random, folder: Path, questions: Questions, columns: Columns) -> str:
    """One question is skipped by name, or it still has its id; the others are read as written."""
    odd = random.randrange(len(questions))
    good = _written(questions[:odd] + questions[odd + 1 :], folder)
    questions[odd] |= {random.choice(list(questions[odd])): random.choice(ODD_VALUES)}
    path = folder / random.choice((json_lines, textvqa))(questions, folder)
    try:
        samples, skipped = read_samples(path, folder, "csv", columns)
    except ValueError as error:
        return refused(error, path)
    found = _read([sample for sample in samples if sample.number != odd])
    assert found == good and len(samples) + len(skipped) == len(questions), (questions, samples, skipped)
    return "skipped" if skipped else "read"


def _read(samples: list[VqaSample]) -> list[tuple]:
    return [(sample.path, sample.question, list(sample.references), str(sample.question_id)) for sample in samples]


def _written(questions: Questions, folder: Path) -> list[tuple]:
    return [
        (folder / IMAGES[question["image_id"]], question["question"], question["answers"], question["question_id"])
        for question in questions
    ]


def _question(random: Random, number: int) -> dict[str, Any]:
    pool = [_text(random).replace("\n", " ").replace("\r", " ") for _ in range(3)]  # a line break ends an answer
    return {
        "image_id": random.choice(list(IMAGES)),
        "question": _text(random),
        "answers": random.choices(pool, k=random.choice((1, 2, 10))),
        "question_id": str(1000 + number),
    }


def _text(random: Random) -> str:
    return "a" + "".join(random.choices(SIGNS, k=random.randint(0, 8)))


def json_cells(questions: Questions, folder: Path) -> str:
    return _table(folder, [{**question, "answers": json.dumps(question["answers"])} for question in questions])


def python_cells(questions: Questions, folder: Path) -> str:
    return _table(folder, [{**question, "answers": str(question["answers"])} for question in questions])


def ten_columns(questions: Questions, folder: Path) -> str:
    rows = []
    for question in questions:
        rest = {name: value for name, value in question.items() if name != "answers"}
        answers = [*question["answers"], *[""] * 10][:10]
        rows.append(rest | {f"answer_{number}": answer for number, answer in enumerate(answers, 1)})
    return _table(folder, rows, "q.tsv", "\t")


def json_lines(questions: Questions, folder: Path) -> str:
    (folder / "q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    return "q.jsonl"


def aokvqa(questions: Questions, folder: Path) -> str:
    return _json(
        folder, [{**question, "direct_answers": question["answers"], "answers": None} for question in questions]
    )


def vizwiz(questions: Questions, folder: Path) -> str:
    rows = []
    for question in questions:
        answers = [{"answer": answer, "answer_confidence": "yes"} for answer in question["answers"]]
        rows.append({**question, "image": IMAGES[question["image_id"]], "answers": answers})
    return _json(folder, rows)


def textvqa(questions: Questions, folder: Path) -> str:
    return _json(folder, {"dataset_name": "textvqa", "data": questions})


def gqa(questions: Questions, folder: Path) -> str:
    records = {}
    for question in questions:
        del question["answers"][1:]
        record = {"imageId": str(question["image_id"]), "answer": question["answers"][0]}
        records[question["question_id"]] = record | {"question": question["question"]}
    return _json(folder, records)


def vqa_v2(questions: Questions, folder: Path) -> str:
    asked = [{key: question[key] for key in ("image_id", "question", "question_id")} for question in questions]
    annotated = [
        {"question_id": question["question_id"], "answers": [{"answer": answer} for answer in question["answers"]]}
        for question in reversed(questions)
    ]
    _json(folder, {"info": {}, "questions": asked}, PAIR[0])
    _json(folder, {"info": {}, "annotations": annotated}, PAIR[1])
    return PAIR[len(questions) % 2]  # either may be named


def _table(folder: Path, rows: list[dict[str, Any]], name: str = "q.csv", separator: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    (folder / name).write_text(text.getvalue(), newline="")
    return name


def _json(folder: Path, content: Any, name: str = "q.json") -> str:
    (folder / name).write_text(json.dumps(content))
    return name


FORMATS: tuple[Callable[[Questions, Path], str], ...]
FORMATS = (json_cells, python_cells, ten_columns, json_lines, aokvqa, vizwiz, textvqa, gqa, vqa_v2)
