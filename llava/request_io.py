"""Requests (an image, a text) from tables, and result files that an interrupted run can continue.

.csv (columns image,text) or .jsonl (fields image, text) -> rows -> requests;  results -> .jsonl, one line each
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from common.text.conversations import read_records
from common.text.files import write_jsonl
from common.text.tables import read_csv


class Request(NamedTuple):
    key: str  # `id` of the row, or its number from 1
    image: str
    text: str


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a .csv or .jsonl. A line that is not a JSON object becomes {"error": reason}."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix.lower() == ".csv":
        _, rows = read_csv(path)
    elif path.suffix.lower() == ".jsonl":
        rows = [_as_row(record) for _, record in read_records(path)]
    else:
        raise ValueError(f"{path}: expected a .csv or .jsonl file")
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def read_requests(path: str | Path) -> list[Request]:
    """Image paths are relative to the file's folder. Bad rows stay in the list; scoring them gives their error."""
    requests = []
    for number, row in enumerate(read_rows(path), 1):
        image = str(row.get("image") or row.get("image_path") or row.get("file_name") or "")
        if number == 1 and not image and "error" not in row:
            raise ValueError(f"{path}: expected columns or fields 'image' and 'text', found {', '.join(map(str, row))}")
        image = str(Path(path).parent / image) if image else f"row {number} names no image"
        requests.append(Request(str(row.get("id") or number), image, str(row.get("text") or "")))
    return requests


class Results:
    """The results file of a run; results of an earlier run with the same settings are kept.

    settings_hash: differs between settings, so that their results are never mixed in one file.
    """

    def __init__(self, path: str | Path, settings_hash: str):
        self.path, self.settings_hash = Path(path), settings_hash
        self.path.parent.mkdir(parents=True, exist_ok=True)
        records = [_as_row(record) for _, record in read_records(self.path)] if self.path.is_file() else []
        if any(record.get("settings_hash") not in (None, settings_hash) for record in records):
            raise ValueError(f"{path}: holds results of other settings or another model; choose another --output")
        # Without half a line, cut by a kill, and without failures: a file that was missing may exist now.
        self.kept = {record["key"]: record for record in records if "error" not in record}
        write_jsonl(self.path, self.kept.values())

    def has(self, request: Request) -> bool:
        record = self.kept.get(request.key)
        return record is not None and (record["image"], record["text"]) == (request.image, request.text)

    def add(self, row: dict[str, Any]) -> None:
        """row: a request's fields with its result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "settings_hash": self.settings_hash}, ensure_ascii=False) + "\n")


def _as_row(record: Any) -> dict[str, Any]:
    if isinstance(record, dict):
        return record
    return {"error": str(record) if isinstance(record, ValueError) else "not a JSON object"}
