"""Index of a file of conversations: where each record lies and which images it names, kept in a cache.

file -> records as JSON Lines -> ConversationIndex: rows (N,), images (I,) -> index[i]: Conversation, when it is needed

Every record is parsed once, by several processes, and what cannot be used is named then; later starts read two arrays.
Lines in UTF-8 are read where they lie. Of any other file (a list in JSON, UTF-16, a table) the cache holds
the records as lines.
"""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json import dumps
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.cli.progress_bar import progress_bar
from common.images.cache_files import read_cache_index, write_cache_index
from common.text.conversations import Conversation, parse_conversation
from common.text.files import UTF16_MARKS, check_file, decode_text, jsonl_line, parse_json, write_atomically
from common.text.tables import read_records
from common.training.loader import in_processes
from common.training.trained_on import digest_of

VERSION = 1  # of the files in the cache
BLOCK = 2**23  # bytes of lines that are parsed at once
MEASURED = 1000  # samples whose tokens are counted at once
ROW = np.dtype([("start", "<i8"), ("size", "<i4"), ("number", "<i4"), ("images", "<i4")])  # see ConversationIndex


@dataclass
class ConversationIndex:
    """A sequence of Conversation, each read from the file at every access.

    rows: of each its place in `lines` (start, size in bytes), its number in the file, from which it is named, and how
    many images it has. images: digests of their names, of one conversation after the other.
    """

    path: Path
    lines: Path  # that hold the records: the file itself, or its copy in the cache
    unit: str  # what a number counts: line (from 1) or entry (from 0)
    digest: str  # of the content
    skipped: dict[int, str]  # number of a record that cannot be used: reason
    trimmed: dict[int, str]  # of one that is used in part
    rows: np.ndarray
    images: np.ndarray
    file: IO[bytes] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return parse_conversation(parse_json(decode_text(self.line(index), self.number(index))))

    def line(self, index: int) -> bytes:
        """The record in JSON. Each process opens the file when it first reads; pread moves no position they share."""
        if self.file is None:
            self.file = self.lines.open("rb")
        return os.pread(self.file.fileno(), int(self.rows["size"][index]), int(self.rows["start"][index]))

    def number(self, index: int) -> int:
        return int(self.rows["number"][index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": None}


def index_conversations(path: str | Path, folder: str | Path) -> ConversationIndex:
    """folder: of the cache. A file of another size or time is indexed anew, and so is one whose index is damaged.

    One process makes an index, the others wait for it.
    """
    check_file(path)
    path, stat = Path(path), Path(path).stat()
    key = digest_of((VERSION, os.path.realpath(path), stat.st_size, stat.st_mtime_ns))
    entry = Path(folder, f"{path.stem[:50]}-{key}.json")
    with lock(entry):
        content = read_cache_index(entry) or _make(path, entry)
    return ConversationIndex(
        path,
        entry.with_suffix(".jsonl") if content["is_copy"] else path,
        content["unit"],
        content["digest"],
        {int(number): reason for number, reason in content["skipped"].items()},
        {int(number): reason for number, reason in content["trimmed"].items()},
        np.fromfile(entry.with_suffix(".rows"), ROW),
        np.fromfile(entry.with_suffix(".images"), np.int64),
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Within the block this process alone holds the lock of a file of a cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile holds the file open


def measure_lengths(
    measure: Callable[[int], int], count: int, folder: str | Path, key: tuple[Any, ...]
) -> tuple[np.ndarray, dict[int, str]]:
    """Tokens of each of `count` samples (N,) int32, kept under `key`; 0, and a reason, for those that cannot be used.

    measure(sample): raises ValueError or OSError for those, which are measured again at every start.
    """
    entry = Path(folder, f"lengths-{digest_of((VERSION, count, *key))}.json")
    stored = entry.with_suffix(".lengths")
    with lock(entry):
        if read_cache_index(entry) is None:
            parts = [range(start, min(start + MEASURED, count)) for start in range(0, count, MEASURED)]
            with write_atomically(stored) as file, progress_bar(total=count, desc="counting tokens") as bar:
                for part in in_processes(partial(_measure, measure), parts):
                    file.write(part.tobytes())
                    bar.update(len(part))
            write_cache_index(entry, {}, [stored])
        lengths = np.fromfile(stored, np.int32)
    reasons = {}
    for sample in np.flatnonzero(lengths == 0).tolist():
        try:
            lengths[sample] = measure(sample)
        except (ValueError, OSError) as error:
            reasons[sample] = str(error)
    return lengths, reasons


def _measure(measure: Callable[[int], int], samples: range) -> np.ndarray:
    lengths = []
    for sample in samples:
        try:
            lengths.append(measure(sample))
        except (ValueError, OSError):
            lengths.append(0)
    return np.array(lengths, np.int32)


def _make(path: Path, entry: Path) -> dict[str, Any]:
    """Write the files of an index -> its content."""
    rows, images, copy = (entry.with_suffix(suffix) for suffix in (".rows", ".images", ".jsonl"))
    skipped: dict[int, str] = {}
    trimmed: dict[int, str] = {}
    unit, numbers, is_copy = "line", None, not _holds_lines(path)
    if is_copy:
        unit, numbers = _copy_records(path, copy, skipped)
    source, digest = copy if is_copy else path, hashlib.blake2b(digest_size=8)
    blocks = [(source, *block) for block in _blocks(source, digest)]
    with (
        write_atomically(rows) as rows_file,
        write_atomically(images) as images_file,
        progress_bar(total=source.stat().st_size, desc=f"reading {path.name}", unit="B", unit_scale=True) as bar,
    ):
        for block, (parsed, digests, *reasons) in zip(blocks, in_processes(_parse_lines, blocks)):
            if numbers is not None:
                parsed["number"] = numbers[parsed["number"] - 1]
                reasons = [{int(numbers[line - 1]): reason for line, reason in part.items()} for part in reasons]
            rows_file.write(parsed.tobytes())
            images_file.write(digests.tobytes())
            skipped |= reasons[0]
            trimmed |= reasons[1]
            bar.update(block[2])
    content = {"is_copy": is_copy, "unit": unit, "digest": digest.hexdigest()}
    content |= {"skipped": dict(sorted(skipped.items())), "trimmed": dict(sorted(trimmed.items()))}
    content = parse_json(dumps(content))  # with numbers as text, as it is read
    write_cache_index(entry, content, [rows, images, *[copy] * is_copy])
    return content


def _holds_lines(path: Path) -> bool:
    """Whether a file is JSON Lines in UTF-8: by its name, or because its first line is a record."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return False
    with path.open("rb") as file:
        start = file.read(4096)
        line = start if b"\n" in start else start + file.readline()
    if start.startswith(UTF16_MARKS) or start[:2].count(0) == 1 or (b"\r" in line and b"\n" not in line):
        return False
    try:
        return path.suffix.lower() == ".jsonl" or isinstance(parse_json(line.partition(b"\n")[0]), dict)
    except ValueError:
        return False


def _copy_records(path: Path, copy: Path, skipped: dict[int, str]) -> tuple[str, np.ndarray]:
    """The records of a file as lines -> what numbers them, and the number of each."""
    unit, numbers = "line", []
    with write_atomically(copy) as file:
        for key, record in read_records(path):
            unit, number = key.removeprefix(f"{path} ").split()
            if isinstance(record, ValueError):
                skipped[int(number)] = str(record)
                continue
            numbers.append(int(number))
            file.write(jsonl_line(record))
    return unit, np.array(numbers, np.int32)


def _blocks(path: Path, digest: Any) -> Iterator[tuple[int, int, int]]:
    """Start and size in bytes of some whole lines, and the number of the first, from 1. digest: of the content."""
    start, number = 0, 1
    with path.open("rb") as file:
        while data := file.read(BLOCK) + file.readline():
            digest.update(data)
            yield start, len(data), number
            start, number = start + len(data), number + data.count(b"\n")


def _parse_lines(block: tuple[Path, int, int, int]) -> tuple[np.ndarray, np.ndarray, dict[int, str], dict[int, str]]:
    """-> rows, digests of images' names, {line: why it cannot be used}, {line: what is trimmed}"""
    path, start, size, first = block
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(size)
    rows: list[tuple[int, ...]] = []
    images: list[int] = []
    skipped: dict[int, str] = {}
    trimmed: dict[int, str] = {}
    for number, line in enumerate(io.BytesIO(data), first):
        try:
            if line.strip():
                conversation = parse_conversation(parse_json(decode_text(line, number)))
                rows.append((start, len(line), number, len(conversation.images)))
                images += map(name_digest, conversation.images)
                if conversation.trimmed:
                    trimmed[number] = conversation.trimmed
        except ValueError as error:
            skipped[number] = str(error)
        start += len(line)
    return np.array(rows, ROW), np.array(images, np.int64), skipped, trimmed


def name_digest(name: str | Path) -> int:
    """63 bits of the name of an image."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(os.path.normpath(name)), digest_size=8).digest(), "big") >> 1
