"""Samples that cannot be used: named with a reason, counted, and an error where they are too many.

skipped: {file or table row: reason}  ->  skipped.jsonl, one {"file": ..., "reason": ...} per line
"""

import sys
from pathlib import Path

from common.cli.errors import printable
from common.text.files import jsonl_line, write_jsonl


def write_skipped(path: str | Path, skipped: dict[str, str]) -> None:
    """path: of skipped.jsonl."""
    write_jsonl(path, ({"file": file, "reason": reason} for file, reason in skipped.items()))


def report_skipped(skipped: dict[str, str], limit: int = 10, listed: str | Path = "skipped.jsonl") -> None:
    """Print the first `limit` skipped samples on stderr, and how many more there are. listed: the file that names all,
    '' for none."""
    for file, reason in list(skipped.items())[:limit]:
        print(f"skipped: {_describe(file, reason)}", file=sys.stderr)
    if len(skipped) > limit:
        place = f", all listed in {printable(listed)}" * bool(listed)
        print(f"skipped: {len(skipped) - limit} more{place}", file=sys.stderr)


def report_trimmed(trimmed: dict[str, str]) -> None:
    """Print on stderr how many samples are used in part, and the first of them. trimmed: {sample: reason}."""
    if trimmed:
        first = _describe(*next(iter(trimmed.items())))
        print(f"used in part: {len(trimmed)} samples; the first: {first}", file=sys.stderr)


def check_skip_rate(skipped: dict[str, str], total: int, limit: float, source: str | Path) -> None:
    """ValueError where more than the share `limit` of the `total` samples of `source` is skipped."""
    if len(skipped) > limit * total:
        raise ValueError(
            f"{source}: {len(skipped)} of {total} samples cannot be used, more than MAX_SKIPPED {limit:.0%}; "
            f"the first: {_describe(*next(iter(skipped.items())))}"
        )


class SkipLog:
    """Skipped samples of a data set that is read lazily: appended to a file that several workers may share.

    path: of skipped.jsonl; None keeps them in `skipped` alone. limit: share above which `add` raises.
    """

    def __init__(self, path: str | Path | None = None, limit: float = 0.05):
        self.path, self.limit = path and Path(path), limit
        self.skipped: dict[str, str] = {}

    def add(self, file: str, reason: object, total: int) -> None:
        """total: samples of the data set; a single skipped one is always allowed."""
        if file in self.skipped:
            return
        self.skipped[file] = " ".join(str(reason).split())
        if self.path:
            with self.path.open("ab") as log:
                log.write(jsonl_line({"file": file, "reason": self.skipped[file]}))
        if len(self.skipped) > max(1, self.limit * total):
            raise ValueError(
                f"{len(self.skipped)} of {total} samples cannot be used, more than {self.limit:.0%}; "
                f"the first: {_describe(*next(iter(self.skipped.items())))}"
            )


def _describe(file: str, reason: str) -> str:
    file, reason = printable(file), printable(reason)
    return reason if file in reason else f"{file}: {reason}"
