"""Lists of images and texts on disk, and results that can be gone on with.

.csv (columns image,text) or .jsonl (fields image, text) -> rows -> requests;  results -> .jsonl, one line each
"""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from common.text.files import write_jsonl
from common.text.json_text import parse_json


class Request(NamedTuple):
    key: str  # `id` of the row, else its number from 1
    image: str
    text: str


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a .csv or .jsonl. A line that is no JSON object becomes {"error": what it is}."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None
    if path.suffix.lower() == ".csv":
        try:
            rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
        except csv.Error as error:
            raise ValueError(f"{path}: cannot be read as CSV ({error})") from None
    elif path.suffix.lower() == ".jsonl":
        rows = [_parsed(line) for line in text.splitlines() if line.strip()]
    else:
        raise ValueError(f"{path}: expected a .csv or .jsonl file")
    if not rows:
        raise ValueError(f"{path}: holds no row")
    return rows


def read_requests(path: str | Path) -> list[Request]:
    """Image paths begin at the file's folder. Bad rows stay in the list and fail when they are asked."""
    requests = []
    for number, row in enumerate(read_rows(path), 1):
        image = str(row.get("image") or row.get("image_path") or row.get("file_name") or "")
        if number == 1 and not image and "error" not in row:
            raise ValueError(f"{path}: expected columns or fields 'image' and 'text', found {', '.join(map(str, row))}")
        place = str(Path(path).parent / image) if image else f"row {number} names no image"
        requests.append(Request(str(row.get("id") or number), place, str(row.get("text") or "")))
    return requests


class Results:
    """The results file of a run; what an earlier run with the same settings has written is kept.

    settings_hash: a word for the settings, so that answers to different questions never meet in one file.
    """

    def __init__(self, path: str | Path, settings_hash: str):
        self.path, self.settings_hash = Path(path), settings_hash
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [_parsed(line) for line in self.path.read_text("utf-8").splitlines()] if self.path.is_file() else []
        if any(line.get("settings_hash") not in (None, settings_hash) for line in lines):
            raise ValueError(f"{path}: holds results of other settings or another model; give --output another name")
        # Half a line, cut by a kill, and what failed: a file that was missing may be there now.
        self.kept = {line["key"]: line for line in lines if "error" not in line}
        write_jsonl(self.path, self.kept.values())

    def has(self, request: Request) -> bool:
        line = self.kept.get(request.key)
        return line is not None and (line["image"], line["text"]) == (request.image, request.text)

    def add(self, request: Request, result: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            line = {**request._asdict(), **result, "settings_hash": self.settings_hash}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        return {"error": str(error)}
    return row if isinstance(row, dict) else {"error": "not a JSON object"}
