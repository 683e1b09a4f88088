"""Tables (.csv, .tsv) and record files (.json, .jsonl) of any origin.

.csv, .tsv -> rows of cells, or with a header rows {column: text};  any of the four -> (file and line, record) for each

Text is UTF-8, with or without a byte order mark. A fault of a whole file is a ValueError of one line that names it.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.cli.names import unknown_name
from common.text.files import check_file, parse_json


def read_records(path: str | Path, hint: str = "") -> Iterator[tuple[str, Any]]:
    """-> (file and line, record) for each; a line that is not JSON gives its ValueError, see check_record.

    JSON that is no list is one record. hint: the flag or the expected files, for the error of a missing file.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        _, rows = read_table(path, hint=hint)
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    check_file(path, hint)
    text = path.read_bytes()
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix != ".jsonl":
        content = _parse(text)
        if not isinstance(content, ValueError):
            records = enumerate(content if isinstance(content, list) else [content])
            yield from ((f"{path} entry {number}", record) for number, record in records)
            return
        if not lines or isinstance(_parse(lines[0][1]), ValueError):
            raise ValueError(f"{path}: neither JSON nor JSON Lines ({content})")
    yield from ((f"{path} line {number}", _parse(line)) for number, line in lines)


def check_record(record: Any) -> None:
    """ValueError where a record of read_records is no JSON object."""
    if isinstance(record, ValueError):
        raise record
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")


def read_table(
    path: str | Path, required: Mapping[str, str] | None = None, hint: str = ""
) -> tuple[list[str], list[dict[str, str]]]:
    """A table with a header -> its columns, its rows by column, '' for absent cells.

    required: columns that it must have, and the flag that names each.
    """
    (_, columns), *rows = read_rows(path, hint) or [(0, [])]
    if repeated := [name for name, count in Counter(filter(None, columns)).items() if count > 1]:
        raise ValueError(f"{path}: its first line names column '{repeated[0]}' more than once")
    for name, flag in (required or {}).items():
        if name not in columns:
            raise ValueError(f"{path}: {unknown_name(name, columns, 'column')} (it has {', '.join(columns)}; {flag})")
    for line, cells in rows:
        if any(cells[len(columns) :]):
            raise ValueError(
                f"{path} line {line}: {len(cells)} cells for {len(columns)} columns; put quotes around texts that "
                "hold the separator"
            )
    return columns, [dict(zip(columns, cells + [""] * len(columns))) for _, cells in rows]


def read_rows(path: str | Path, hint: str = "") -> list[tuple[int, list[str]]]:
    """-> (line that it ends in, cells) for each row, the header included; a .tsv is split at tabs."""
    path = Path(path)
    check_file(path, hint)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            return [(reader.line_num, cells) for cells in reader if cells]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error})") from None
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: cannot be read as CSV ({error})") from None


def _parse(text: bytes) -> Any:
    """JSON, or the ValueError in its place."""
    try:
        return parse_json(text)
    except ValueError as error:
        return error
