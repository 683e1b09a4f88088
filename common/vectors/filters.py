"""Filters of a search by folder, label and date: one condition, which both engines of a vector store evaluate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from common.vectors.records import LATEST

DAY = len("2026-05-31")
NO_NAME = re.compile("[\0\ud800-\udfff]")  # which are never indexed: common/images/folders.py


@dataclass(frozen=True)
class Filter:
    """Which images may be found; what is not given restricts nothing."""

    folder: str = ""  # images in this folder of the image folder, and in the folders below it
    label: Sequence[str] = ()  # images whose own folder has one of these names
    since: str = ""  # images whose file was changed on this day or later: 2026-05-31, or 2026-05-31T12:00
    until: str = ""  # images whose file was changed by the end of this day, or before this time

    def conditions(self, image_dir: Path) -> list[tuple[str, list[str | int]]]:
        """Clauses that all hold, in what the languages of SQLite and Milvus have in common, with {} for each value.

        The columns are those of common/vectors/records.py. A folder is a range of names, so no value is a pattern.
        """
        clauses: list[tuple[str, list[str | int]]] = []
        if folder := self._relative_folder(image_dir):
            clauses.append(("name >= {} and name < {}", [f"{folder}/", f"{folder}0"]))  # 0 comes next to /
        if self.label:
            clauses.append((f"({' or '.join(['label == {}'] * len(self.label))})", list(self.label)))
        if self.since:
            clauses.append(("changed >= {}", [_nanoseconds("since", self.since)]))
        if self.until:
            clauses.append(("changed < {}", [_nanoseconds("until", self.until, end=True)]))
        for value in (folder, *self.label):
            if NO_NAME.search(value):
                raise ValueError(f"--folder, --label: {ascii(value)} is no name of an image's folder")
        return clauses

    def _relative_folder(self, image_dir: Path) -> str:
        """'' = the image folder itself."""
        folder = Path(self.folder)
        if folder.is_absolute():
            for root in (image_dir, image_dir.resolve()):
                if folder.is_relative_to(root):
                    folder = folder.relative_to(root)
        if folder.is_absolute() or ".." in folder.parts:
            raise ValueError(f"--folder {self.folder}: expected a folder below {image_dir}")
        return "" if folder == Path() else PurePosixPath(folder).as_posix()


def _nanoseconds(flag: str, text: str, end: bool = False) -> int:
    """Since 1970, of a day or a time in the local zone, unless it names another. end: of the end of a day."""
    try:
        time = datetime.fromisoformat(text)
        seconds = (time + timedelta(days=end and len(text) <= DAY)).timestamp()
        return max(-LATEST, min(LATEST, int(seconds) * 10**9))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"--{flag} {text}: expected a day or a time, as 2026-05-31 or 2026-05-31T12:00") from None
