"""llava.request_io: random tables, and results files cut by a kill at a random byte."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from benchmarks.doors import refused
from llava.request_io import Request, Results, read_requests

TEXTS = ("a cat", "a cat", "评分", 'say "8"', "two\nlines", "\u2028next\x85", "a,b;c\td", " 8 ", "😀", "#", "{x}")
BAD = (None, 5, float("nan"), True, ["x"], {"a": 1}, "half \ud83d", "nul \0")
IDS = ("a", "1", 1, 0, 2, "a (2)", "", None, 1.5, True, [1], "x\u2028")


def trial(random: Random, folder: Path) -> str:
    with patch("os.fsync"):  # the disk is not tried here
        return _trial(random, folder)


def _trial(random: Random, folder: Path) -> str:
    output = folder / "out.jsonl"
    output.unlink(missing_ok=True)
    rows = [_row(random) for _ in range(random.randint(1, 4))]
    first = _requests(random, folder, rows)
    if isinstance(first, str):
        return first
    written = {request.key: _answer(random, request) for request in first}
    _score(output, first, written)
    assert _read(output) == written, "results changed on the way"
    size = random.randint(0, output.stat().st_size)
    output.write_bytes(output.read_bytes()[:size])  # as a kill leaves it
    kept = {_pair(row): row for row in map(_parsed, output.read_bytes().split(b"\n")) if row and "error" not in row}

    changed = rows + [_row(random)]
    random.shuffle(changed)
    second = _requests(random, folder, changed)
    if isinstance(second, str):
        return second
    answers = {request.key: _answer(random, request) for request in second}
    asked = _score(output, second, answers)
    assert asked == [request.key for request in second if request.error or _pair(request._asdict()) not in kept], asked
    for key, row in _read(output).items():
        assert row == {**kept[_pair(row)], "key": key} if key not in asked else row == answers[key], "a result changed"
    assert {_pair(row) for row in _read(output).values()} >= kept.keys(), "a result was lost"
    return "skipped" if any(request.error for request in second) else "read"


def _row(random: Random) -> dict[str, Any]:
    text = random.choice(TEXTS) if random.random() < 0.9 else random.choice(BAD)
    return {"id": random.choice(IDS), "image": random.choice(("a.png", "b/ü.png", "c.png")), "text": text}


def _requests(random: Random, folder: Path, rows: list[dict[str, Any]]) -> list[Request] | str:
    """Read from a table; or the outcome where it is refused."""
    is_csv = all(isinstance(row["text"], str) and row["text"] not in BAD for row in rows) and random.random() < 0.5
    path = folder / ("in.csv" if is_csv else "in.jsonl")
    if is_csv:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ["id", "image", "text"])
            table.writeheader()
            table.writerows({**row, "id": "" if row["id"] is None else str(row["id"])} for row in rows)
    else:
        path.write_text("".join(json.dumps(row) + random.choice(("\n", "\r\n")) for row in rows), newline="")
    try:
        requests = read_requests(path)
    except ValueError as error:
        return refused(error, path)
    assert len({request.key for request in requests}) == len(rows), "keys collide"
    for request, row in zip(requests, rows, strict=True):
        assert request.error or (request.text, request.image) == (row["text"], str(folder.resolve() / row["image"]))
        assert bool(request.error) == (row["text"] in BAD or not isinstance(row["text"], str)), request
    return requests


def _score(output: Path, requests: list[Request], answers: dict[str, Any]) -> list[str]:
    """-> keys of the requests that are asked."""
    results = Results(output, "hash", requests)
    for request in results.pending:
        results.add(answers[request.key])
    results.close()
    return [request.key for request in results.pending]


def _answer(random: Random, request: Request) -> dict[str, Any]:
    result = {"error": request.error or "no such file"} if request.error or random.random() < 0.2 else {
        "score": random.choice((8, 7.5, None)), "p_yes": random.random(), "response": random.choice(TEXTS),
    }  # fmt: skip
    return {"key": request.key, "image": request.image, "text": request.text, **result, "settings_hash": "hash"}


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return row["image"], row["text"]


def _read(output: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    assert len({row["key"] for row in rows}) == len(rows), "two results of one key"
    return {row["key"]: row for row in rows}


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
