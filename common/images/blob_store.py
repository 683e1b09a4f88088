"""Bounded key-value store in a SQLite file, for values that can be recomputed: losing them only costs time.

key (bytes), value (bytes) -> <folder>/blobs.sqlite: key, CRC-32 of key and value, value

Any number of processes and threads of one machine read and write at once. Neither a kill nor a power cut nor a bad disk
makes `get` return a wrong value: a value with another checksum is missing, and a file that SQLite finds malformed is
replaced by a new one. A full disk or a read-only folder ends the caching, not the run. Not for network file systems,
whose locks SQLite cannot rely on.

SQLite rather than LMDB, which is faster where nothing is damaged: LMDB reads through a memory map, so a flipped bit in
a length, a truncated file or an unreadable sector is a bus error, which ends the process.
"""

import fcntl
import os
import shutil
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakSet

from common.cli.errors import printable

FILE = "blobs.sqlite"
PAGE_SIZE = 2**16  # bytes, SQLite's largest: a value of 300 KB is read in five
BATCH = 2**23  # bytes of values that wait for a common transaction; what waits is lost in a kill
PATIENCE = 10.0  # seconds to wait for another process's transaction, before values are dropped
MALFORMED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
SELECT = "SELECT checksum, value FROM blobs WHERE key = ?"
SETTINGS = (
    f"PRAGMA page_size = {PAGE_SIZE}",
    "PRAGMA journal_mode = WAL",  # readers do not wait for a writer
    "PRAGMA synchronous = OFF",  # a kill is harmless; after a power cut, checksums tell
    f"PRAGMA wal_autocheckpoint = {2 * BATCH // PAGE_SIZE}",
    f"PRAGMA journal_size_limit = {2 * BATCH}",
    "CREATE TABLE IF NOT EXISTS blobs (key BLOB PRIMARY KEY, checksum INTEGER, value BLOB)",
)
_LOCK = RLock()  # of all stores of this process
_OPEN: WeakSet["BlobStore"] = WeakSet()
_closes_in = 0  # id of the process that closes its stores when it ends


class BlobStore:
    """A store in `folder`. limit: bytes of all stores below the folder's parent, above which nothing more is kept.

    `is_full`: nothing more is kept. A pickle is the same store for another process.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        self.is_full = self._is_unusable = self._was_damaged = False
        self._connection: sqlite3.Connection | None = None
        self._descriptor = -1  # of the folder, locked as long as the store is open
        self._inode = 0  # of the file that is open
        self._waiting: dict[bytes, bytes] = {}

    def __reduce__(self) -> Any:
        return BlobStore, (self.folder, self.limit)

    def __del__(self) -> None:
        self.close()

    def get(self, key: bytes) -> bytes | None:
        with _LOCK:
            if (value := self._waiting.get(key)) is not None:
                return value
            row = self._attempt(lambda connection: connection.execute(SELECT, (key,)).fetchone())
        checksum, value = row or (0, None)  # of any type, where the file is damaged
        return value if isinstance(value, bytes) and _checksum(key, value) == checksum else None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value: written with others, at last when the process ends."""
        with _LOCK:
            if self.is_full or self._is_unusable:
                return
            self._waiting[key] = value
            if sum(map(len, self._waiting.values())) >= BATCH:
                self._flush()

    def close(self) -> None:
        """Write what waits and let the file go; the next access opens it again."""
        with _LOCK:
            self._flush()
            self._close()

    def _flush(self) -> None:
        rows = [(key, _checksum(key, value), value) for key, value in self._waiting.items()]
        self._waiting = {}
        if not rows:
            return
        size = sum(len(value) for *_, value in rows)
        if stored_bytes(self.folder.parent) + size > self.limit:  # with a log, which can be shortened
            self._attempt(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        if stored_bytes(self.folder.parent) + size > self.limit:
            self.is_full = True
        else:
            self._attempt(lambda connection: _insert(connection, rows))

    def _attempt(self, access: Callable[[sqlite3.Connection], Any]) -> Any:
        """The result of an access; None where it fails, after which the store is new, unusable, or as it was."""
        if self._is_unusable:
            return None
        try:
            return access(self._connection or self._open())
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in MALFORMED:
                self._remove()
            elif code != sqlite3.SQLITE_BUSY and not self.is_full:  # busy: others have written all the time
                self.is_full, self._is_unusable = True, self._connection is None
                print(f"{printable(self.folder)}: nothing more is cached ({error})", file=sys.stderr)
            if not self._connection:
                self._close()
            return None

    def _open(self) -> sqlite3.Connection:
        global _closes_in
        with _folder_locked(self.folder.parent):  # nobody removes it meanwhile
            self.folder.mkdir(exist_ok=True)
            os.utime(self.folder)
            self._descriptor = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            path = self.folder / FILE
            self._inode = path.stat().st_ino if path.exists() else 0
            connection = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
            connection.text_factory = bytes
            for statement in SETTINGS:
                connection.execute(statement)
            self._connection, self._inode = connection, path.stat().st_ino
        _OPEN.add(self)
        if _closes_in != os.getpid():
            _closes_in = os.getpid()
            Finalize(None, _close_all, exitpriority=10)  # at the end of a loader process, too
        return connection

    def _close(self) -> None:
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._connection, self._descriptor = None, -1
        _OPEN.discard(self)

    def _remove(self) -> None:
        """Remove a malformed file, unless another process has done so since it was opened here."""
        path = self.folder / FILE
        with suppress(OSError), _folder_locked(self.folder.parent):
            if path.stat().st_ino == self._inode:
                print(f"{printable(path)}: the cache is damaged; it is made again", file=sys.stderr)
                for ending in ("", "-wal", "-shm"):
                    path.with_name(FILE + ending).unlink(missing_ok=True)
                self._is_unusable, self._was_damaged = self._was_damaged, True  # a second time it is the disk
        self._close()


def make_room(parent: Path, allowed: int, keep: Path) -> list[str]:
    """Remove stores below `parent` that no process has open, least recently opened first, until all but `keep` take no
    more than `allowed` bytes -> names of the removed ones."""
    removed = []
    with _folder_locked(parent):
        stores = {path.parent for path in parent.glob(f"*/{FILE}")} - {keep}
        for store in sorted(stores, key=lambda folder: folder.stat().st_mtime):
            if stored_bytes(parent) - stored_bytes(parent, keep.name) <= allowed:
                break
            descriptor = os.open(store, os.O_RDONLY)
            with suppress(BlockingIOError):  # it is open
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(store)
                removed.append(store.name)
            os.close(descriptor)
    return removed


def stored_bytes(parent: Path, name: str = "*") -> int:
    """Bytes of the stores below a folder, or of one of them."""
    total = 0
    for path in parent.glob(f"{name}/{FILE}*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            total += path.stat().st_size
    return total


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _insert(connection: sqlite3.Connection, rows: list[tuple[bytes, int, bytes]]) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            cursor.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", rows)
            cursor.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")
            raise


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _close_all() -> None:
    for store in list(_OPEN):
        store.close()


def _before_fork() -> None:
    """SQLite's connections and their locks must not be shared with a child."""
    _LOCK.acquire()
    _close_all()


os.register_at_fork(before=_before_fork, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
