"""Samples that cannot be used: named with a reason, counted, and an error where they are too many.

skipped: {file or table row: reason}  ->  skipped.jsonl, one {"file": ..., "reason": ...} per line
"""

import fcntl
import json
import sys
from collections.abc import Mapping
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


def check_skip_rate(
    skipped: dict[str, str], total: int, limit: float, source: str | Path, unit: str = "samples"
) -> None:
    """ValueError where more than the share `limit` of the `total` samples, or shards, of `source` is skipped."""
    if len(skipped) > limit * total:
        raise ValueError(
            f"{source}: {len(skipped)} of {total} {unit} cannot be used, more than MAX_SKIPPED {limit:.0%}; "
            f"the first: {_describe(*next(iter(skipped.items())))}"
        )


class SkipLog:
    """Skipped samples of a data set that is read lazily, of all workers and processes of a run, each of them once.

    path: of skipped.jsonl, which they share; None keeps the names in this process. limit: share above which `add`
    raises. quiet: do not print the names. unit: what is skipped, if not samples.
    """

    def __init__(self, path: str | Path | None = None, limit: float = 0.05, quiet: bool = True, unit: str = "samples"):
        self.path, self.limit, self.quiet, self.unit = path and Path(path), limit, quiet, unit
        self.skipped: dict[str, str] = {}
        self._read_bytes = 0  # of the file

    def add(self, file: str, reason: object, total: int) -> None:
        """total: samples of the data set; a single skipped one is always allowed."""
        if file in self.skipped:
            return
        self.skipped[file] = " ".join(str(reason).split())
        if self.path:
            self._share(file)
        if len(self.skipped) > max(1, self.limit * total):
            raise ValueError(
                f"{len(self.skipped)} of {total} {self.unit} cannot be used, more than {self.limit:.0%}; "
                f"the first: {_describe(*next(iter(self.skipped.items())))}"
            )

    def _share(self, file: str) -> None:
        """Append a sample to the file, unless another process has, and read what others have appended."""
        assert self.path
        with self.path.open("a+b") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.seek(self._read_bytes)
            rows = [_parse(line) for line in log]
            if all(row["file"] != file for row in rows):
                log.write(jsonl_line({"file": file, "reason": self.skipped[file]}))
                if not self.quiet:
                    print(f"skipped: {_describe(file, self.skipped[file])}", file=sys.stderr)
            self._read_bytes = log.tell()
        self.skipped = {row["file"]: row["reason"] for row in rows} | self.skipped


def open_logs(logs: Mapping[str, SkipLog], folder: Path, is_main: bool) -> None:
    """Give the logs of a run, by name, their files, which all processes append to, and a resumed run, too. What they
    hold already is in all processes; the main one writes it."""
    for name, log in logs.items():
        log.path = folder / f"{name}.jsonl"
        log.quiet = name.startswith("trimmed")
        if is_main and not log.path.exists():
            write_skipped(log.path, log.skipped)


def _parse(line: bytes) -> dict[str, str]:
    try:
        row = json.loads(line)
        return {"file": row["file"], "reason": row["reason"]}
    except (ValueError, LookupError, TypeError):  # its writer was killed
        return {"file": "?", "reason": "a broken line"}


def _describe(file: str, reason: str) -> str:
    file, reason = printable(file), printable(reason)
    return reason if file in reason else f"{file}: {reason}"
