"""common.text.tables: tables written by the csv module in any dialect and encoding, whole or with bytes changed."""

import csv
import io
from pathlib import Path
from random import Random

from benchmarks.doors import mutated, refused
from benchmarks.doors.texts import random_line
from common.text.tables import read_records, read_table

NAMES = ["image", "text", "label", "style", "id", "Frage", "标题"]


def trial(random: Random, folder: Path) -> str:
    columns = random.sample(NAMES, random.randint(2, 5))
    rows = [{name: _cell(random) for name in columns} for _ in range(random.randint(0, 5))]
    separator, end = random.choice(",;\t|"), random.choice(("\n", "\r\n", "\r"))
    file = io.StringIO()
    quoting = random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    if end == "\r":
        quoting = csv.QUOTE_ALL  # the writer leaves texts with \n without quotes
    writer = csv.DictWriter(file, columns, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    text = random.choice(("", "", f"sep={separator}{end}")) + file.getvalue()
    path = folder / random.choice(("table.csv", "table.tsv"))
    data = text.encode(random.choice(("utf-8", "utf-8-sig", "utf-16")))
    if random.random() < 0.6:
        path.write_bytes(data)
        required = dict.fromkeys(random.sample(columns, random.randint(0, len(columns))), "--column")
        assert read_table(path, required) == (columns, rows)
        assert [record for _, record in read_records(path)] == rows
        return "read"
    path.write_bytes(mutated(random, data))
    try:
        records = list(read_records(path))
    except ValueError as error:
        return refused(error, path)
    for source, record in records:
        assert source.startswith(f"{path} line ")
        assert isinstance(record, ValueError) or all(isinstance(cell, str) for cell in record.values())
    return "skipped" if any(isinstance(record, ValueError) for _, record in records) else "read"


def _cell(random: Random) -> str:
    return "\n".join(random_line(random) for _ in range(random.choice((1, 1, 3))))
