"""Atomic writing of files, JSON and JSON Lines; reading of JSON of any origin; Git LFS pointers."""

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


def check_file(path: str | Path, hint: str = "") -> None:
    """An error where `path` is no file, or a Git LFS pointer. hint: the flag or the expected folder."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file" + (f" ({hint})" if hint else ""))
    refuse_lfs_pointer(path)


def read_json(path: str | Path, hint: str = "") -> Any:
    """A file of JSON. hint: as in check_file."""
    check_file(path, hint)
    try:
        return parse_json(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """json.loads; bytes are UTF-8."""
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error})") from None
    except RecursionError:
        raise ValueError("not JSON (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
