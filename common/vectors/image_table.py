"""Table of images and their vectors in an SQLite file.

images: id, name, size, changed, label, checksum, vector (D numbers)

SQLite, because a transaction holds the vectors and what they are of: a write is there as a whole or not at all,
whenever its process is killed. An id is never used twice, so the rows that an index lacks are always known.
"""

import json
import sqlite3
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.vectors.engine import Conditions
from common.vectors.feature_set import check_rows
from common.vectors.records import Stamp

TABLE = """CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
changed INTEGER NOT NULL, label TEXT NOT NULL, checksum INTEGER NOT NULL, vector BLOB NOT NULL) STRICT"""
PAGE_BYTES = 16_384  # vectors of a thousand numbers fill pages of the usual size by half
BLOCK_ROWS = 8192
WAIT_SECONDS = 60  # for another process's transaction
AMONG = "WHERE id IN (SELECT value FROM json_each(?))"


class ImageTable:
    """Vectors of `width` numbers, kept as `dtype`. An operation has a connection of its own, so that threads and forked
    processes can share a table."""

    def __init__(self, path: Path, width: int, dtype: str, create: bool = False):
        self.path, self.width, self.dtype = path, width, np.dtype(dtype)
        if create:
            with self._connect("rwc") as connection:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute(TABLE.replace("TABLE", "TABLE IF NOT EXISTS", 1))

    @contextmanager
    def _connect(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """A transaction; ValueError for a file that is damaged, or no table of ours."""
        connection = None
        try:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", WAIT_SECONDS, uri=True)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            tables = connection.execute("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
            if mode == "rw" and [sql for (sql,) in tables] != [TABLE]:
                raise sqlite3.DatabaseError("other tables than ours")
            with connection:
                yield connection
        except sqlite3.OperationalError as error:  # no space, no right to write, no such file
            raise OSError(f"{self.path}: {error}") from None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}: damaged, or none of ours ({error}); run build_index.py again") from None
        finally:
            if connection:
                connection.close()

    def __len__(self) -> int:
        with self._connect() as connection:
            return connection.execute("SELECT count(*) FROM images").fetchone()[0]

    def add(self, stamps: Sequence[Stamp], vectors: np.ndarray) -> None:
        """vectors (n, D)"""
        rows = []
        for stamp, vector in zip(stamps, vectors.astype(self.dtype)):
            data = vector.tobytes()
            rows.append((*stamp, stamp.label, zlib.crc32(data), data))
        with self._connect() as connection:
            connection.executemany("INSERT OR REPLACE INTO images VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)

    def remove(self, names: Collection[str]) -> None:
        with self._connect() as connection:
            connection.executemany("DELETE FROM images WHERE name = ?", ((name,) for name in names))

    def stamps(self) -> list[Stamp]:
        with self._connect() as connection:
            rows = connection.execute("SELECT name, size, changed FROM images ORDER BY id").fetchall()
        return [Stamp(*row).check(self.path) for row in rows]

    def ids(self, conditions: Conditions = ()) -> np.ndarray:
        """-> (n,) int64, ascending, of the rows that meet the conditions."""
        clauses = " AND ".join(["TRUE", *(clause.replace("{}", "?") for clause, _ in conditions)])
        values = [value for _, values in conditions for value in values]
        with self._connect() as connection:
            found = connection.execute(f"SELECT id FROM images WHERE {clauses} ORDER BY id", values)
            return np.fromiter((row for (row,) in found), np.int64)

    def names(self, ids: Iterable[int]) -> dict[int, str]:
        """Of those that are there."""
        with self._connect() as connection:
            rows = connection.execute(f"SELECT id, name, size, changed FROM images {AMONG}", [json.dumps(list(ids))])
            return {row[0]: Stamp(*row[1:]).check(self.path).name for row in rows.fetchall()}

    def rows(self, ids: np.ndarray) -> Iterator[tuple[np.ndarray, list[Stamp], np.ndarray]]:
        """Those of ascending `ids`, in blocks: ids (n,), n stamps, vectors (n, D) float32."""
        for start in range(0, len(ids), BLOCK_ROWS):
            with self._connect() as connection:
                rows = connection.execute(
                    f"SELECT id, name, size, changed, checksum, vector FROM images {AMONG} ORDER BY id",
                    [json.dumps(ids[start : start + BLOCK_ROWS].tolist())],
                ).fetchall()
            if not rows:  # removed meanwhile
                continue
            stamps = [Stamp(*row[1:4]).check(self.path) for row in rows]
            for stamp, (*_, checksum, data) in zip(stamps, rows):
                if not self._is_intact(checksum, data):
                    raise ValueError(f"{self.path}: vector of {ascii(stamp.name)} damaged; run build_index.py again")
            vectors = np.frombuffer(b"".join(row[5] for row in rows), self.dtype).reshape(len(rows), self.width)
            vectors = vectors.astype(np.float32)
            check_rows(vectors, self.path, names=[stamp.name for stamp in stamps])
            yield np.array([row[0] for row in rows]), stamps, vectors

    def _is_intact(self, checksum: int, data: bytes) -> bool:
        return zlib.crc32(data) == checksum and len(data) == self.width * self.dtype.itemsize

    def repair(self) -> None:
        """Remove rows whose vector is damaged; all, if the file cannot be read."""
        try:
            with self._connect() as connection:
                rows = connection.execute("SELECT id, checksum, vector FROM images")
                damaged = [(row,) for row, *rest in rows if not self._is_intact(*rest)]
                connection.executemany("DELETE FROM images WHERE id = ?", damaged)
        except ValueError as error:
            print(f"{error}; all its images are encoded again", file=sys.stderr)
            self.path.unlink()
            ImageTable(self.path, self.width, self.dtype.name, create=True)
