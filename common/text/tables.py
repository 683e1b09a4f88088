"""Tables (.csv, .tsv) and record files (.json, .jsonl) of any origin.

.csv, .tsv -> rows of cells, or with a header rows {column: text};  any of the four -> (file and line, record) for each

Text is decoded by common/text/files.py. A table is read in the dialect of Python's csv module and of Excel: texts that
hold the separator, a quote or a line end stand in quotes, and a quote in them is written twice. The separator is the
one under which the required columns are found, else the one that gives the first line most cells. A fault of a whole
file is a ValueError of one line that names it.
"""

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.cli.names import unknown_name
from common.text.files import DECODER, LINE_END, iter_lines, parse_json, read_text
from common.text.values import text_of

SEPARATORS = ",;\t|"
SPACES = (" ", "\t", "\r", "\n")
EXCEL_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?(\r\n|\r|\n)')  # Excel's first line, which no column is named like
Row = dict[str, str]


def read_records(
    path: str | Path, hint: str = "", required: Mapping[str, str] | None = None, separator: str = ""
) -> Iterator[tuple[str, Any]]:
    """-> (file and line, record) for each; a line that is none gives its ValueError in place, see check_record.

    JSON that is no list is one record. hint: the flag or the expected files, for the error of a missing file.
    required, separator: of a table, see read_table; '' finds the separator.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        _, rows = _read_table(path, hint, required, separator)
        yield from ((f"{path} line {line}", row) for line, row in rows)
        return
    if path.suffix.lower() != ".jsonl":
        text = read_text(path, hint)
        if not _is_json_lines(text):
            try:
                for number, record in enumerate(_iter_json(text)):
                    yield f"{path} entry {number}", record
            except ValueError as error:
                raise ValueError(f"{path}: neither JSON nor JSON Lines ({error})") from None
            return
    yield from ((f"{path} line {number}", _parse(line)) for number, line in iter_lines(path, hint))


def check_record(record: Any) -> None:
    """ValueError where a record of read_records is no JSON object."""
    if isinstance(record, ValueError):
        raise record
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")


def read_table(
    path: str | Path, required: Mapping[str, str] | None = None, hint: str = ""
) -> tuple[list[str], list[Row]]:
    """A table with a header -> its columns, its rows by column.

    required: columns that it must have, and the flag that names each.
    """
    columns, rows = _read_table(Path(path), hint, required)
    table = []
    for line, row in rows:
        if isinstance(row, ValueError):
            raise ValueError(f"{path} line {line}: {row}")
        table.append(row)
    return columns, table


def read_rows(path: str | Path, hint: str = "") -> list[tuple[int, list[str]]]:
    """-> (line that it begins in, cells) for each row, the header included."""
    return list(_iter_rows(path, hint))


def _iter_rows(
    path: str | Path, hint: str, required: Collection[str] = (), separator: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """required: names that the header has."""
    text, line = read_text(path, hint), 1
    csv.field_size_limit(sys.maxsize)  # of one cell; Python's own limit is 131,072 characters
    if stated := EXCEL_SEPARATOR.match(text):
        text, line, separator = text[stated.end() :], 2, stated[1]
    separator = separator or _find_separator(text, "\t" if Path(path).suffix.lower() == ".tsv" else ",", required)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    offset = line
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = offset + reader.line_num
    except csv.Error as error:
        reason = "its quote never ends" if "end of data" in str(error) else f"cannot be read as CSV ({error})"
        raise ValueError(f"{path} line {line}: {reason}; a quote within quotes is written twice") from None


def _read_table(
    path: Path, hint: str = "", required: Mapping[str, str] | None = None, separator: str = ""
) -> tuple[list[str], Iterator[tuple[int, Row | ValueError]]]:
    """-> columns; line and row by column, or the ValueError in its place."""
    rows = _iter_rows(path, hint, required or (), separator)
    _, names = next(rows, (0, []))
    columns = [name.strip() for name in names]
    while columns and not columns[-1]:  # separators at the ends of the lines
        columns.pop()
    if repeated := [name for name, count in Counter(filter(None, columns)).items() if count > 1]:
        raise ValueError(f"{path}: its first line names column '{repeated[0]}' more than once")
    for name, flag in (required or {}).items():
        if name not in columns:
            raise ValueError(f"{path}: {unknown_name(name, columns, 'column')} (it has {', '.join(columns)}; {flag})")
    return columns, ((line, _row(columns, cells)) for line, cells in rows)


def _row(columns: list[str], cells: list[str]) -> Row | ValueError:
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        return ValueError(
            f"{len(cells)} cells for {len(columns)} columns ({', '.join(columns)[:60]}); put quotes around texts that "
            "hold the separator"
        )
    try:
        return {column: text_of(cell) for column, cell in zip(columns, cells)}
    except ValueError as error:
        return error


def _find_separator(text: str, usual: str, required: Collection[str]) -> str:
    """The separator under which the first line has the required names, else most cells, else the usual one."""

    def fits(separator: str) -> tuple[int, int, bool]:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        names = {cell.strip() for cell in cells}
        return sum(name in names for name in required), len(cells), separator == usual

    return max(SEPARATORS, key=fits)


def _is_json_lines(text: str) -> bool:
    """Whether the first line is JSON, and not the last."""
    end = LINE_END.search(text := text.lstrip())
    return (
        end is not None and bool(text[end.end() :].strip()) and not isinstance(_parse(text[: end.start()]), ValueError)
    )


def _iter_json(text: str) -> Iterator[Any]:
    """The elements of a list, each parsed when it is needed; other JSON itself."""
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        yield parse_json(text)
        return
    position = _skip_space(text, position + 1)
    is_next = text[position : position + 1] != "]"
    try:
        while is_next:
            record, position = DECODER.raw_decode(text, position)
            yield record
            position = _skip_space(text, position)
            if is_next := text[position : position + 1] == ",":
                position = _skip_space(text, position + 1)
        if text[position : position + 1] == "]" and _skip_space(text, position + 1) == len(text):
            return
    except (ValueError, RecursionError):
        pass
    parse_json(text)  # which says what is wrong


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in SPACES:
        position += 1
    return position


def _parse(text: str | ValueError) -> Any:
    """JSON, or the ValueError in its place."""
    try:
        return text if isinstance(text, ValueError) else parse_json(text)
    except ValueError as error:
        return error
