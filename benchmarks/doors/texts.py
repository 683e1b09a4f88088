"""common.text.files and values: texts of any characters, line ends, encodings and marks; values of any type."""

import json
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.doors import mutated, refused
from common.text.files import iter_lines, parse_json, read_lines
from common.text.values import text_of

# str.splitlines() would split at five of them.
CHARACTERS = "ab 1,;\"'\t\x0b\x0c\x1c\x85\u2028\u00a0éß字か한😀\u200d\ufeff\\{"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "gbk", "shift_jis", "koi8-r")
READ = ENCODINGS[:3]


def trial(random: Random, folder: Path) -> str:
    return random.choice((_file, _mutated_file, _value))(random, folder)


def random_line(random: Random, longest: int = 12) -> str:
    return "".join(random.choices(CHARACTERS, k=random.randint(0, longest))).lstrip("\ufeff")


def _file(random: Random, folder: Path) -> str:
    """Lines in some encoding: read again as they were, or refused where the encoding is none of Unicode's."""
    path, encoding = folder / "texts.txt", random.choice(ENCODINGS)
    lines = [random_line(random) for _ in range(random.randint(1, 6))]
    end = random.choice(("\n", "\r\n", "\r"))
    content = (end.join(lines) + end).encode(encoding, "replace")
    path.write_bytes(content)
    try:
        read = read_lines(path)
    except ValueError as error:
        assert encoding not in READ, f"{encoding}: {error}"
        return refused(error, path)
    if encoding in READ:
        assert read == lines, f"{encoding}: {lines} came back as {read}"
        assert [line for _, line in iter_lines(path)] == [line for line in lines if line.strip()]
    elif not encoding.startswith("utf"):
        assert content == (end.join(read) + end).encode(), f"bytes in {encoding} were changed"
    return "read"


def _mutated_file(random: Random, folder: Path) -> str:
    """Half of the time a text is found line by line: each is what its bytes say, or a ValueError with its number."""
    path = folder / "texts.jsonl"
    lines = [json.dumps({"text": random_line(random)}, ensure_ascii=False) for _ in range(random.randint(1, 4))]
    path.write_bytes(mutated(random, "\n".join(lines).encode(random.choice(READ))))
    try:
        read = list(iter_lines(path))
    except ValueError as error:
        return refused(error, path)
    errors = [(number, line) for number, line in read if isinstance(line, ValueError)]
    for number, error in errors:
        assert f"line {number}" in str(error) or "UTF-" in str(error), error
    for _, line in read:
        try:
            parse_json(line) if isinstance(line, str) else None
        except ValueError as error:
            errors.append((0, error))
    return "skipped" if errors else "read"


def _value(random: Random, folder: Path) -> str:
    """A value where text is expected, by way of JSON: the same text, or a ValueError."""
    text = random_line(random)
    values: list[Any] = [text, text + "\ud83d", "\udcff" + text, text + "\0", 5, 2.5, float("nan"), float("inf")]
    values += [True, None, {"a": text}, [text], [[text]], 10**400, []]
    value = random.choice(values)
    try:
        read = text_of(parse_json(json.dumps(value, ensure_ascii=random.random() < 0.5)))
    except ValueError as error:
        assert value is not text and "\n" not in str(error) and str(error).isprintable(), error
        return "skipped"
    assert read == value and isinstance(read.encode(), bytes), (value, read)
    return "read"
