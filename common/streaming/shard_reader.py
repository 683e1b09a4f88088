"""Samples of one shard, from a file or from a server that may be slow, break off or be gone for a while.

https://host/00000.tar -> fsspec (bytes) -> webdataset (members) -> {"__key__": "000000123", "jpg": bytes, "txt": ...}

A sample is a run of members with one key: the name up to the first dot of its last part. tar, tar.gz, tar.bz2 and
tar.xz are read. Nothing is written to a disk.
"""

import io
import tarfile
import time
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import Any

from common.cli.errors import one_line
from common.streaming.urls import filesystem_of
from common.text.files import LFS_HINT, LFS_START

ATTEMPTS = 5  # in a row without a byte, before a shard is given up
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
BLOCK = 2**20  # bytes that are read at once
RETRIED = (408, 425, 429)  # of the HTTP statuses 4xx: those that may pass


class ShardError(ValueError):
    """A shard, or the rest of it, that cannot be read. The message begins with its URL."""


def read_samples(url: str) -> Iterator[dict[str, Any]]:
    """{"__key__": key, suffix: bytes, ...} of each sample in the order of the shard. ShardError once it is broken."""
    from webdataset.tariterators import group_by_keys, tar_file_iterator  # imports torch

    source = RetryingFile(url)
    seen: set[str] = set()
    try:
        members = ({**member, "__url__": url} for member in tar_file_iterator(io.BufferedReader(source, BLOCK)))
        for sample in group_by_keys(members, handler=_keep_first):
            if sample["__key__"] in seen:
                raise ShardError(
                    f"{url}: members of sample {sample['__key__']} do not stand together; pack it by `tar --sort=name`"
                )
            seen.add(sample["__key__"])
            yield sample
    except (tarfile.TarError, EOFError, OSError, zlib.error, LZMAError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{url}: {source.kind() or f'cannot be read as a tar ({one_line(error)})'}") from None
    finally:
        source.close()


class RetryingFile(io.RawIOBase):
    """A remote or local file read from its start. A connection that fails is opened again where it broke off.

    Attempts are counted anew after every byte that arrives; the pauses between them double. OSError after the last.
    """

    def __init__(self, url: str):
        self.url, self.position, self.start = url, 0, b""
        self.file: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """RawIOBase: fill `buffer` -> bytes read; 0 at the end."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if self.file is None:
                    self.file = open_at(self.url, self.position)
                data = self.file.read(len(buffer))
            except Exception as error:  # each file system raises what its own library does
                self._close_file()
                if attempt == ATTEMPTS or not is_temporary(error):
                    reason = one_line(error) or type(error).__name__
                    raise ShardError(f"{self.url}: {reason} at byte {self.position:,}") from None
                time.sleep(PAUSE * 2 ** (attempt - 1))
                continue
            buffer[: len(data)] = data
            self.start = self.start or bytes(data[:100])
            self.position += len(data)
            return len(data)
        raise AssertionError("the last attempt returns or raises")

    def kind(self) -> str:
        """What a file is that is no tar, by its first bytes; '' if that is not known."""
        if self.start.startswith(LFS_START):
            return LFS_HINT
        is_page = self.start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html"))
        return "a page of HTML, which a server sent in place of the shard" if is_page else ""

    def close(self) -> None:
        self._close_file()
        super().close()

    def _close_file(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file = None


def open_at(url: str, position: int) -> Any:
    """A file opened for reading from a byte on. A server without ranges sends what stands before again."""
    system, path = filesystem_of(url)
    if not url.startswith(("http://", "https://")):
        file = system.open(path, "rb", block_size=4 * BLOCK, cache_type="readahead")
        file.seek(position)
        return file
    # One request for the whole rest; with a size given, it is not preceded by another one for the size.
    headers = {"Range": f"bytes={position}-"} if position else {}
    file = system.open(path, "rb", block_size=0, size=1, headers=headers | {"Accept-Encoding": "identity"})
    try:
        remaining = position if file.r.status == 200 else 0
        while remaining:
            remaining -= len(data := file.read(min(remaining, BLOCK)))
            if not data:
                raise ShardError(f"{url}: the server's copy has become shorter than {position:,} bytes")
    except BaseException:
        file.close()
        raise
    return file


def is_temporary(error: Exception) -> bool:
    """Whether another attempt may succeed: not where a file is absent, refused, or the request is wrong."""
    if isinstance(error, (ShardError, FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError)):
        return False
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in RETRIED)


def _keep_first(error: Exception) -> bool:
    """Of two members of a sample with one suffix the first is kept; tar's appending makes such."""
    return True
