"""Files of a cache: checked when they are opened, mapped into memory, passed to other processes by name.

<key>.json: {content: what the cache holds, and size and CRC-32 of its files; checksum: of the content}

The index is written last, so its presence shows that the cache is complete. A damaged cache is made again.
"""

import mmap
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import printable
from common.text.files import parse_json, write_json

BLOCK = 2**26  # bytes of a file for each of its checksums
THREADS = 4  # of checksums; each makes about 1 GB/s


class MappedArray(np.memmap):
    """A file of numbers, read as they are needed. A pickle holds its name: numpy's own would copy the whole file, for
    each data loader process that is spawned."""

    def __reduce__(self) -> Any:
        if not isinstance(self.base, mmap.mmap):  # a part of another: its values
            return np.asarray(self).__reduce__()
        return map_array, (self.filename, self.dtype, self.shape)


def map_array(path: str | Path, dtype: Any, shape: Sequence[int]) -> MappedArray:
    return MappedArray(path, dtype, "r", shape=tuple(shape))


def read_cache_index(index: Path) -> dict[str, Any] | None:
    """The content; None if there is no cache, or, with a line on stderr, if it is damaged."""
    if not index.is_file():
        return None
    try:
        stored = parse_json(index.read_bytes())
        content = stored["content"]
        files = {name: _checksums(index.with_name(name)) for name in content["files"]}
        if zlib.crc32(dumps(content).encode()) == stored["checksum"] and files == content["files"]:
            return content
    except (ValueError, LookupError, TypeError, OSError):  # whatever damage makes of JSON and files
        pass
    print(f"{printable(index)}: the cache is damaged; it is made again", file=sys.stderr)
    return None


def write_cache_index(index: Path, content: dict[str, Any], files: Sequence[Path]) -> None:
    """files: in the folder of the index."""
    content = {**content, "files": {path.name: _checksums(path) for path in files}}
    content = parse_json(dumps(content))  # tuples become lists, as they are read
    write_json(index, {"content": content, "checksum": zlib.crc32(dumps(content).encode())})


def _checksums(path: Path) -> list[int]:
    """The size in bytes, and CRC-32 of each block."""

    def checksum(start: int) -> int:
        with path.open("rb") as file:
            file.seek(start)
            return zlib.crc32(file.read(BLOCK))

    size = path.stat().st_size
    with ThreadPoolExecutor(THREADS) as pool:
        return [size, *pool.map(checksum, range(0, size, BLOCK))]
