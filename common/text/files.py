"""Atomic writing of files, JSON and JSON Lines; reading of text and JSON of any origin; Git LFS pointers."""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

Parsed = TypeVar("Parsed")
LFS_START = b"version https://git-lfs"
LFS_HINT = "a Git LFS pointer, not the file itself; run `git lfs pull` in its clone"
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
LINE_END = re.compile("\r\n|\r|\n")  # str.splitlines also splits at U+0085, U+2028 and others that texts hold
NO_TEXT = {  # first bytes of what is sometimes given for a text, and what to do
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"PK\x03\x04": 'a ZIP archive or Excel\'s .xlsx; unpack it, or save the table as "CSV UTF-8"',
    b"\xd0\xcf\x11\xe0": 'Excel\'s .xls; save the table as "CSV UTF-8"',
    b"PAR1": "a Parquet table; its name must end in .parquet",
}
CONVERT = 'save it as UTF-8 (in Excel "CSV UTF-8"), or convert it: iconv -f ENCODING -t UTF-8 OLD > NEW'
SURROGATES = "backslashreplace"  # in names of files that are not UTF-8: \udce9, which is how JSON writes one


@contextmanager
def write_atomically(path: str | Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that gets its name only when it is complete; on any failure the old one stays.

    durable: wait until it is on the disk, so that it survives a power cut as well.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[-50:]}.{os.getpid()}.partial")  # no longer than a name may be
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:  # a new file: in a folder of others, a link may wait under that name
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
        file.writelines(map(jsonl_line, rows))


def jsonl_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors=SURROGATES)


def write_json(path: str | Path, content: Any) -> None:
    with write_atomically(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(errors=SURROGATES))


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


def decode_text(data: bytes, first_line: int = 1) -> str:
    """Text in UTF-8, with or without a byte order mark, or in UTF-16 with one; anything else is a ValueError.

    first_line: number of the first of its lines, for the error.
    """
    if data.startswith(UTF32_MARKS):
        raise ValueError(f"not UTF-8 text but UTF-32; {CONVERT}")
    if data[:2].count(0) == 1:
        raise ValueError(f"not UTF-8 text: binary, or UTF-16 without a byte order mark; {CONVERT}")
    encoding = "utf-16" if data.startswith(UTF16_MARKS) else "utf-8"
    try:
        return data.decode(encoding).lstrip("\ufeff")  # programs add a mark to what has one
    except UnicodeDecodeError as error:
        if other := next((NO_TEXT[start] for start in NO_TEXT if data.startswith(start)), None):
            raise ValueError(f"not UTF-8 text but {other}") from None
        line = len(LINE_END.findall(data[: error.start].decode(encoding, "replace"))) + first_line
        found = f"byte 0x{data[error.start]:02x}" if encoding == "utf-8" else "broken UTF-16"
        raise ValueError(f"not UTF-8 text in line {line} ({found}); {CONVERT}") from None


def read_text(path: str | Path, hint: str = "") -> str:
    """A file of text, its line ends as they are. hint: as in check_file."""
    return _parse_file(path, decode_text, hint)


def read_lines(path: str | Path, hint: str = "") -> list[str]:
    """The lines of a file of text, without their ends."""
    return split_lines(read_text(path, hint))


def iter_lines(path: str | Path, hint: str = "") -> Iterator[tuple[int, str | ValueError]]:
    """-> number from 1, line of a file of text that is not blank; a ValueError where a line is not UTF-8.

    Read as needed, but for UTF-16, of which the whole is read.
    """
    check_file(path, hint)
    with Path(path).open("rb") as file:
        start = file.read(4)
    if start.startswith(UTF16_MARKS) or start[:2].count(0) == 1:
        yield from ((number, line) for number, line in enumerate(read_lines(path), 1) if line.strip())
        return
    with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:  # which ends lines as LINE_END does
        for number, line in enumerate(file, 1):
            try:
                text = line.rstrip("\n")
                if not text.isascii() or "\0" in text[:2]:  # most lines need no second look
                    text = decode_text(text.encode("utf-8", "surrogateescape"), number)
            except ValueError as error:
                yield number, error
            else:
                if text.strip():
                    yield number, text


def split_lines(text: str) -> list[str]:
    """The lines of a text, which end with \\n, \\r\\n or \\r; nothing else ends one."""
    lines = LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def read_json(path: str | Path, hint: str = "") -> Any:
    """A file of JSON. hint: as in check_file."""
    return _parse_file(path, parse_json, hint)


def _parse_file(path: str | Path, parse: Callable[[bytes], Parsed], hint: str) -> Parsed:
    """ValueError names the file."""
    check_file(path, hint)
    try:
        return parse(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """json.loads of text or of bytes as decode_text takes them. An object that names a key twice is refused; NaN and
    Infinity, which many programs write, are floats."""
    decoded = decode_text(text) if isinstance(text, bytes) else text
    try:
        return DECODER.decode(decoded)
    except RecursionError:
        raise ValueError("not JSON (nested too deeply)") from None
    except ValueError as error:  # of numbers with thousands of digits, Python advises to raise its limit
        raise ValueError(f"not JSON ({str(error).partition(';')[0]})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{ascii(name)[:60]} stands twice in an object")
    return content


DECODER = json.JSONDecoder(object_pairs_hook=_unique)
