"""Atomic writing of files, JSON and JSON Lines; Git LFS pointers."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

LFS_START = b"version https://git-lfs"
LFS_HINT = "a Git LFS pointer, not the file itself; run `git lfs pull` in its clone"


@contextmanager
def write_atomically(path: str | Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that gets its name only when it is complete; on any failure the old one stays.

    durable: wait until it is on the disk, so that it survives a power cut as well.
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
            error.errno, f"could not be written ({error.strerror}); an earlier version is untouched", str(path)
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    with write_atomically(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)


def write_json(path: str | Path, content: Any) -> None:
    with write_atomically(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def refuse_lfs_pointer(path: str | Path) -> None:
    """ValueError if `path` is the text file that a clone without Git LFS has in place of the file."""
    with Path(path).open("rb") as file:
        if file.read(len(LFS_START)) == LFS_START:
            raise ValueError(f"{path}: {LFS_HINT}")
