"""The page's own folder: what visitors upload, and what it draws for them; deleted with the page.

folder/uploads/<hash>/<name>    files of visitors: the only ones that an answer opens
folder/results/<hash>/<name>    heat maps and thumbnails; the oldest make room for new ones
folder/samples/<name>           pictures of the examples

Uploads and results are deleted after SECONDS.
"""

import os
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

SECONDS = 3600  # how long files are kept
BODY_SECONDS = 300  # of one upload, at most
FILE_COST = 65_536  # bytes that a file counts at least: a million empty ones fill a disk as well
NOT_UPLOADED = "not an uploaded picture, or already deleted; choose a file or paste a picture"


class Uploads:
    """quota: bytes of uploads, and as many of results."""

    def __init__(self, quota: int, parent: str | Path | None = None):
        self._temporary = TemporaryDirectory(prefix="vision-wrapper-page-", dir=parent)  # for this user alone
        root = Path(self._temporary.name).resolve()
        self.folders = [root / name for name in ("uploads", "results", "samples")]
        self.uploads, self.results, self.samples = self.folders
        self.quota = quota
        for folder in self.folders:
            folder.mkdir()

    def check(self, path: object) -> Path:
        """The uploaded file that `path` names; ValueError, always the same one, for anything else."""
        return self._check(path, self.uploads)

    def check_served(self, path: str) -> Path:
        """The same for a file that visitors may fetch: an upload, a result or a sample."""
        return self._check(path, *self.folders)

    def _check(self, path: object, *folders: Path) -> Path:
        """By the text first, so that nothing outside is touched; then no link may stand on the way."""
        try:
            if isinstance(path, str) and any(path.startswith(f"{folder}/") for folder in folders):
                is_plain = path == os.path.normpath(path) == os.path.realpath(path)
                if is_plain and stat.S_ISREG(os.lstat(path).st_mode):
                    return Path(path)
        except (OSError, ValueError):  # also of names that are too long, or hold NUL
            pass
        raise ValueError(NOT_UPLOADED)

    def room(self) -> int:
        """Bytes that can still be uploaded."""
        used = sum(max(size, FILE_COST) for _, size, _ in _files(self.uploads))
        return min(self.quota - used, shutil.disk_usage(self.uploads).free // 2)

    def sweep(self) -> None:
        """Delete what is old, what aborted uploads left, and the oldest results above the quota."""
        now = time.time()
        for path, _, changed in _files(self.uploads):
            if now - changed > (BODY_SECONDS if path.parent == self.uploads else SECONDS):
                _delete(path)
        used = 0
        for path, size, changed in sorted(_files(self.results), key=lambda file: -file[2]):
            used += max(size, FILE_COST)
            if now - changed > SECONDS or used > self.quota:
                _delete(path)

    def close(self) -> None:
        self._temporary.cleanup()


def _files(folder: Path) -> list[tuple[Path, int, float]]:
    """Path, bytes and time of change of everything below `folder` that is no folder; links are not followed."""
    files = []
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            try:
                status = path.lstat()
            except FileNotFoundError:  # renamed or deleted meanwhile
                continue
            files.append((path, status.st_size, status.st_mtime))
    return files


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        path.parent.rmdir()
