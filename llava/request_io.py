"""Requests (an image, a text) from tables, and result files that an interrupted run can continue.

.csv (columns image,text) or .jsonl (fields image, text) -> requests;  results -> .jsonl, one line each
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from common.text.files import write_jsonl
from common.text.tables import read_records

IMAGE_KEYS = ("image", "image_path", "file_name")


class Request(NamedTuple):
    key: str  # `id` of the record, or its number from 1
    image: str
    text: str


def read_requests(path: str | Path) -> list[Request]:
    """Image paths are relative to the file's folder. Bad records stay in the list; scoring them gives their error."""
    requests = []
    for number, (source, record) in enumerate(read_records(path, "--input"), 1):
        fields = record if isinstance(record, dict) else {}
        image = next((str(Path(path).parent / str(fields[key])) for key in IMAGE_KEYS if fields.get(key)), None)
        if number == 1 and fields and not image:
            raise ValueError(f"{path}: expected columns or fields 'image' and 'text', found {', '.join(fields)}")
        key = str(fields.get("id") or number)
        requests.append(Request(key, image or f"{source} names no image", str(fields.get("text") or "")))
    if not requests:
        raise ValueError(f"{path}: holds no records")
    return requests


class Results:
    """The results file of a run; results of an earlier run with the same settings are kept.

    settings_hash: differs between settings, so that their results are never mixed in one file.
    """

    def __init__(self, path: str | Path, settings_hash: str):
        self.path, self.settings_hash = Path(path), settings_hash
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Half a line, cut by a kill, is dropped, and so are failures: a file that was missing may exist now.
        lines = read_records(self.path) if self.path.is_file() else ()
        records = [record for _, record in lines if isinstance(record, dict)]
        if any(record.get("settings_hash") != settings_hash for record in records):
            raise ValueError(f"{path}: holds results of other settings or another model; choose another --output")
        self.kept = {record["key"]: record for record in records if "error" not in record}
        write_jsonl(self.path, self.kept.values())

    def has(self, request: Request) -> bool:
        record = self.kept.get(request.key)
        return record is not None and (record["image"], record["text"]) == (request.image, request.text)

    def add(self, row: dict[str, Any]) -> None:
        """row: a request's fields with its result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "settings_hash": self.settings_hash}, ensure_ascii=False) + "\n")
