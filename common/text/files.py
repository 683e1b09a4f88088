"""Files written whole or not at all, JSON and JSON Lines among them; Git LFS pointers."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

LFS_START = b"version https://git-lfs"
LFS_HINT = "a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned"


@contextmanager
def write_atomically(path: str | Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name only once it is whole; on any failure the old one stays.

    durable: wait until the disk has it, so that it outlives a power cut too.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not be written ({error.strerror}); what was there before is untouched", str(path)
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """A .jsonl of `rows`."""
    with write_atomically(path) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def write_json(path: str | Path, content: Any) -> None:
    with write_atomically(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def is_lfs_pointer(path: str | Path) -> bool:
    """Whether a clone without Git LFS left its three lines of text in the place of this file."""
    with Path(path).open("rb") as file:
        return file.read(len(LFS_START)) == LFS_START


def refuse_lfs_pointer(path: str | Path) -> None:
    """ValueError with the remedy where `path` is a Git LFS pointer."""
    if is_lfs_pointer(path):
        raise ValueError(f"{path}: {LFS_HINT}")
