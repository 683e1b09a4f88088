"""Questions about images in the files that people have, with the answers of one annotator or of ten.

.csv, .tsv, .jsonl   columns or fields image, question, answer; answers: a list (in a cell as JSON or as Python writes
                     it), or a column for each (answer_1 ... answer_10)
.json                a list of such records, or as published:
  VQA v2, OK-VQA     {"questions": [...]}, and {"annotations": [...]} in the file next to it; either file may be named
  A-OKVQA, VizWiz    [{"image_id", "question", "direct_answers"}], [{"image", "question", "answers": [{"answer"}]}]
  TextVQA, GQA       {"data": [{"image_id", "question", "answers"}]}, {id: {"imageId", "question", "answer"}}

file -> (place, record) for each -> VqaSample; what is wrong with a record is its ValueError in place
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from blip2_gated.style_vocabulary import in_words
from common.cli.names import unknown_name
from common.metrics.vqa import most_frequent_answer
from common.text.files import parse_json, read_json
from common.text.tables import check_record, read_records
from common.text.values import text_of

IMAGE_IDS = ("image_id", "imageId")
Record = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; '' for one it does not have.

    Where a file has no column of images, its image_id or imageId is read. Several answers stand in the column `answer`
    itself, or where it ends in s (answers, direct_answers) or in a number (answer_1).
    """

    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    style: str = "style"
    type: str = ""
    style_type: str = "school"  # artquest only: the question type whose answer is the style

    def holds_image(self, name: str) -> bool:
        return name == self.image or name in IMAGE_IDS

    def holds_answers(self, name: str) -> bool:
        pattern = rf"(?:direct_)?{re.escape(self.answer)}s|{re.escape(self.answer)}[ _.-]?\d+"
        return bool(self.answer) and (name == self.answer or re.fullmatch(pattern, name) is not None)


@dataclass(frozen=True)
class VqaSample:
    number: int  # of the row in its table, from 0
    image: str  # as in the table
    question: str
    answer: str  # of several the most frequent
    style: str = ""  # label, '' = unknown
    type: str = "other"  # of the question
    question_id: int | str | None = None  # of the table, for the VQA evaluation; None: its number
    path: Path = Path()  # of the image; read_samples fills it in
    answers: tuple[str, ...] = ()  # of all annotators, if there are several
    place: str = field(default="", compare=False)  # file:line of its table, for messages; read_samples fills it in

    @property
    def references(self) -> tuple[str, ...]:
        return self.answers or (self.answer,)


def csv_samples(rows: Sequence[Record], columns: Columns) -> list[VqaSample | ValueError]:
    """One sample per row. Without a column of types a question is of type 'style' if its answer names the style."""

    def sample(number: int, row: Record) -> VqaSample | ValueError:
        try:
            answer, answers = _answers(row, columns)
            style, question_id = _text(row, columns.style), _question_id(row)
            names_style = style and in_words(style) in in_words(answer)
            question_type = _text(row, columns.type) if columns.type else "style" if names_style else "other"
            question = _text(row, columns.question)
            return VqaSample(
                number, _image(row, columns), question, answer, style, question_type, question_id, answers=answers
            )
        except ValueError as error:
            return error

    return [sample(number, row) for number, row in enumerate(rows)]


def artquest_samples(rows: Sequence[Record], columns: Columns) -> list[VqaSample | ValueError]:
    """ArtQuest (Bleidt et al. 2024) has up to six types of question per painting: artist, school, timeframe, type,
    technique, title. It has no column of styles.

    The nearest to a style is the school (Italian, Dutch, ...): a painting's style is the answer to its question of
    `columns.style_type`, by default 'school'. 'timeframe' is another choice; artists and titles are too many classes.
    """
    items = csv_samples(rows, replace(columns, style=""))
    samples = [item for item in items if isinstance(item, VqaSample)]
    types = {sample.type.lower() for sample in samples}
    if columns.style_type not in types:
        raise ValueError(unknown_name(columns.style_type, sorted(types), "--data.style_type"))
    styles = {sample.image: sample.answer.lower() for sample in samples if sample.type.lower() == columns.style_type}
    return [
        replace(item, type=item.type.lower(), style=styles.get(item.image, "")) if isinstance(item, VqaSample) else item
        for item in items
    ]


def read_vqa_records(path: Path, columns: Columns, hint: str = "") -> tuple[list[str], list[Record | ValueError]]:
    """-> file:line or file:entry of each record; the records, or the ValueError in place of a broken one.

    ValueError or FileNotFoundError where the file is of none of the forms above, or lacks a column.
    """
    places, records = _split(path, read_records(path, hint, {columns.question: "--data.question_column"}))
    if path.suffix.lower() in (".csv", ".tsv"):  # which have no numbers; 007 is none
        records = [_with_number(record) if isinstance(record, dict) else record for record in records]
    if len(records) == 1 and isinstance(records[0], dict) and columns.question not in records[0]:
        places, records = _split(path, _published(path, records[0], columns))
    names = list(dict.fromkeys(name for record in records if isinstance(record, dict) for name in record))
    is_there = {
        "image": any(map(columns.holds_image, names)),
        "question": columns.question in names,
        "answer": not columns.answer or any(map(columns.holds_answers, names)),
        **{kind: getattr(columns, kind) in ("", *names) for kind in ("style", "type")},
    }
    for kind in (kind for kind in is_there if names and not is_there[kind]):
        name = unknown_name(getattr(columns, kind), names, "column")
        raise ValueError(f"{path}: {name} (it has {', '.join(names[:20])}; --data.{kind}_column)")
    return places, records


def _split(path: Path, records: Iterable[tuple[str, Any]]) -> tuple[list[str], list[Record | ValueError]]:
    """(file and place, record) for each -> the places, the records or what is wrong with them."""
    places, checked = list[str](), list[Record | ValueError]()
    for place, record in records:
        places.append(f"{path}:{place.removeprefix(f'{path} ').removeprefix('line ')}")
        try:
            check_record(record)
            checked.append(record)
        except ValueError as error:
            checked.append(error)
    return places, checked


def _published(path: Path, content: Record, columns: Columns) -> Iterator[tuple[str, Any]]:
    """The content of one of the published files -> (file and place, record) for each."""
    if isinstance(content.get("data"), list):
        entries = content["data"]
    elif "questions" in content or "annotations" in content:
        entries = _joined(path, content, columns)
    else:
        entries = [
            {"question_id": key, **record} if isinstance(record, dict) else record for key, record in content.items()
        ]
    yield from ((f"{path} entry {number}", entry) for number, entry in enumerate(entries))


def _joined(path: Path, content: Record, columns: Columns) -> list[Any]:
    """The questions of VQA v2, each with what is annotated about its question_id; a ValueError where nothing is."""
    if "questions" not in content:
        files = [other for other in sorted(path.parent.glob("*questions*.json")) if _annotations_of(other) == path]
        if not files:
            raise FileNotFoundError(f"{path}: has annotations, but the file of their questions is not next to it")
        content = {**content, "questions": _list_in(files[0], read_json(files[0]), "questions")}
    questions = _list_in(path, content, "questions")
    first = next((question for question in questions if isinstance(question, dict)), {})
    if not columns.answer or any(map(columns.holds_answers, first)):
        return questions
    if "annotations" not in content:
        if (source := _annotations_of(path)) == path:
            raise ValueError(f"{path}: questions without answers; annotations are looked for next to *questions*.json")
        path, hint = source, "the annotations of these questions; for questions alone: --data.answer_column ''"
        content = read_json(path, hint)
    annotations = [entry for entry in _list_in(path, content, "annotations") if isinstance(entry, dict)]
    times = Counter(str(annotation.get("question_id")) for annotation in annotations)
    by_id = {str(annotation.get("question_id")): annotation for annotation in annotations}
    ids = [str(question.get("question_id")) if isinstance(question, dict) else "" for question in questions]
    joined: list[Any] = [
        question
        if not isinstance(question, dict)  # reported later
        else {**by_id[name], **question}
        if times[name] == 1
        else ValueError(f"question_id {name[:40]} has {times[name]} annotations in {path}")
        for name, question in zip(ids, questions)
    ]
    unasked = by_id.keys() - set(ids)
    return joined + [ValueError(f"{path}: question_id {name[:40]} has no question") for name in sorted(unasked)]


def _annotations_of(questions: Path) -> Path:
    """v2_OpenEnded_mscoco_val2014_questions.json -> v2_mscoco_val2014_annotations.json, in the same folder."""
    return questions.with_name(questions.name.replace("OpenEnded_", "").replace("questions", "annotations"))


def _list_in(path: Path, content: Any, name: str) -> list[Any]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list '{name}'")
    return entries


def _answers(row: Record, columns: Columns) -> tuple[str, tuple[str, ...]]:
    """-> the answer to train on: of the column `answer`, or the most frequent; those of all annotators, if several."""
    given = {name: _listed(row, name) for name in _answer_columns(columns, tuple(row))}
    own = given.pop(columns.answer, [])
    lists = [answers for name, answers in given.items() if name.endswith("s")]
    numbered = [answer for name, answers in given.items() if not name.endswith("s") for answer in answers]
    answers = next(filter(None, (*lists, numbered, own)), [])
    written = [answer for answer in answers if answer.strip()]
    answer = own[0] if len(own) == 1 else most_frequent_answer(written) if written else ""
    return answer, tuple(answers) if len(answers) > 1 else ()


@lru_cache(64)
def _answer_columns(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """Equal for most rows of a table."""
    return [name for name in names if columns.holds_answers(name)]


def _listed(row: Record, name: str) -> list[str]:
    """The answers of a field: a list of texts or of {"answer"}, such a list in a table's cell, or a text."""
    try:
        value = _unpacked(row[name]) if isinstance(row[name], str) else row[name]
        if isinstance(value, list | tuple):
            return [text_of(item.get("answer") if isinstance(item, dict) else item) for item in value]
        return [] if value in (None, "") else [text_of(value)]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _unpacked(cell: str) -> Any:
    """A list of quoted texts or of objects in a cell, as JSON or as Python writes it; other text as it is."""
    text = cell.strip()
    if text == "[]":
        return []
    is_bracketed = text.startswith("[") and text.endswith("]")
    if not is_bracketed or not re.match(r"\[\s*(?:[\"'{]|nan\b|null\b)", text, re.IGNORECASE):
        return cell
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    # NumPy writes no commas, which makes ['a' 'b'] the text 'ab'
    if value is None or "".join(repr(value).split()) != "".join(text.split()):
        raise ValueError(f"a list that is neither JSON nor as Python writes it ({text[:40]})")
    return value


def _image(row: Record, columns: Columns) -> str:
    name = next((row[name] for name in (columns.image, *IMAGE_IDS) if row.get(name) is not None), "")
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else _checked("image", name)


def _text(row: Record, column: str) -> str:
    """'' where there is none."""
    value = row.get(column) if column else None
    return "" if value is None else _checked(column, value)


def _checked(column: str, value: Any) -> str:
    try:
        return text_of(value)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _with_number(row: Record) -> Record:
    """The row of a table, its question_id as a whole number if it spells one."""
    is_number = re.fullmatch(r"0|[1-9]\d{0,17}", row.get("question_id", ""), re.ASCII)
    return {**row, "question_id": int(row["question_id"])} if is_number else row


def _question_id(row: Record) -> int | str | None:
    """A whole number or a text; None where there is none."""
    value = row.get("question_id")
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise ValueError(f"question_id: expected a whole number or a text, got {repr(value)[:40]}")
    return text_of(value) or None if isinstance(value, str) else value
