"""Requests (an image, a text) from tables, and result files that an interrupted run can continue.

.csv (columns image,text) or .jsonl (fields image, text) -> requests;  results -> .jsonl, one line each
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from common.text.files import jsonl_line, parse_json, write_atomically
from common.text.tables import check_record, read_records
from common.text.values import file_name_of, text_of

IMAGE_KEYS = ("image", "image_path", "file_name")
LINE_START = b'{"key": '  # of every line of a results file
FIELDS = {"key", "image", "text", "settings_hash"}


class Request(NamedTuple):
    key: str  # `id` of the record, or its number from 1; unique in its file
    image: str
    text: str
    error: str = ""  # what is wrong with the record

    @property
    def pair(self) -> tuple[str, str]:
        """What is scored; requests with the same pair have the same result."""
        return str(Path(self.image).absolute()), self.text


def read_requests(path: str | Path) -> list[Request]:
    """Image paths are relative to the file's folder, and full paths in the requests. Bad records keep their place,
    with their error."""
    records = list(read_records(path, "--input"))
    if not records:
        raise ValueError(f"{path}: holds no records")
    fields = [record for _, record in records if isinstance(record, dict)]
    if fields and not any("text" in record and _image_key(record) for record in fields):
        columns = ", ".join(dict.fromkeys(str(name) for record in fields for name in record))
        raise ValueError(f"{path}: expected columns or fields 'image' and 'text', found {columns}")
    folder = Path(path).parent.resolve()
    ids = [record.get("id") if isinstance(record, dict) else None for _, record in records]
    return [_request(key, source, record, folder) for key, (source, record) in zip(unique_keys(ids), records)]


def _request(key: str, source: str, record: Any, folder: Path) -> Request:
    try:
        check_record(record)
        name = _image_key(record)
        if not name:
            raise ValueError("names no image")
        image, text = (text_of(record.get(field), field) for field in (name, "text"))
        return Request(key, str(folder / file_name_of(image, folder)), text)
    except ValueError as error:
        return Request(key, "", "", f"{source}: {error}")


def _image_key(record: dict[str, Any]) -> str | None:
    return next((name for name in IMAGE_KEYS if record.get(name) not in (None, "")), None)


def unique_keys(ids: Sequence[Any]) -> list[str]:
    """Each id as text, or its number from 1 where it is None or ''; one that is taken gets ' (2)', ' (3)', ..."""
    texts = ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in ids]
    keys, taken, repeats = [""] * len(texts), set[str](), Counter[str]()
    for index in sorted(range(len(texts)), key=lambda index: not texts[index]):  # ids first: numbers give way to them
        base = key = (texts[index] or str(index + 1)).encode("utf-8", "backslashreplace").decode()
        while key in taken:
            repeats[base] += 1
            key = f"{base} ({repeats[base] + 1})"
        taken.add(key)
        keys[index] = key
    return keys


class Results:
    """The results file of a run; no other process may have it open.

    Results of an earlier start with the same settings are kept, whatever the order of the requests. Its failures are
    asked for again: an image that was missing may exist now. Results of other requests stay too.

    settings_hash: differs between settings, so that their results are never mixed in one file.
    """

    def __init__(self, path: str | Path, settings_hash: str, requests: Sequence[Request]):
        self.path, self.settings_hash = Path(path).resolve(), settings_hash  # a link is kept, its target written
        self.finished: dict[tuple[str, str], dict[str, Any]] = {}  # pair -> row, of this start and earlier ones
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{path}: not a file; name a .jsonl (--output)")
        with self.path.open("ab") as earlier_file:
            _lock(earlier_file, self.path)
            earlier = [row for row in self._read() if "score" in row]
            self.finished = {_pair(row): row for row in earlier}
            self.pending = [request for request in requests if request.error or request.pair not in self.finished]
            rows = [{**self.finished[item.pair], "key": item.key} for item in requests if item.pair in self.finished]
            asked = {request.pair for request in requests}
            rows += [row for row in earlier if _pair(row) not in asked]
            keys = unique_keys([request.key for request in self.pending] + [row["key"] for row in rows])
            with write_atomically(self.path) as file:
                for key, row in zip(keys[len(self.pending) :], rows):
                    file.write(jsonl_line({**row, "key": key}))
                file.flush()
                self.file = os.fdopen(os.dup(file.fileno()), "wb")  # the same open file, behind its rows
                fcntl.flock(self.file, fcntl.LOCK_EX)  # nobody else knows its name yet

    def _read(self) -> list[dict[str, Any]]:
        """ValueError where a line is not one that this class writes, except for the start of one at the end of the
        file, where a kill cut it."""
        *lines, last = self.path.read_bytes().split(b"\n")
        rows = []
        for number, line in enumerate([*lines, last], 1):
            try:
                row = parse_json(line) if line.strip() else None
            except ValueError:
                row = None if number > len(lines) and _is_start(line.strip(b"\0")) else {}
            if row is None:
                continue
            if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in FIELDS):
                raise ValueError(f"{self.path} line {number}: no result of this program; choose another --output")
            if row["settings_hash"] != self.settings_hash:
                raise ValueError(
                    f"{self.path}: holds results of other settings or another model; choose another --output"
                )
            rows.append(row)
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """row: a request's key, image and text with its result. It is on the disk when this returns."""
        self.finished[_pair(row)] = row
        try:
            self.file.write(jsonl_line({**row, "settings_hash": self.settings_hash}))
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; all earlier results are in it", str(self.path)) from None

    def close(self) -> None:
        self.file.close()


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return Request("", row["image"], row["text"]).pair


def _lock(file: IO[bytes], path: Path) -> None:
    """Until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        replaced = not os.path.samestat(os.fstat(file.fileno()), path.stat())  # by another process, just now
    except BlockingIOError:
        replaced = True
    if replaced:
        raise ValueError(f"{path}: another process is writing here; wait for it, or choose another --output")


def _is_start(line: bytes) -> bool:
    return line[: len(LINE_START)] == LINE_START[: len(line)]
