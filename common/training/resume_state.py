"""Folders of state to go on from, that can be trusted: whole, unchanged since they were written, with one before them.

last.partial/ -> last/ -> last.older/       each holds checksums.json, the file that is written last
checkpoint-N/                               of Hugging Face's Trainer, the same

A power cut, a full disk, a bad sector or a copy that broke off leaves a folder that looks whole. Going on from it fails
late or, worse, does not fail. So every file's SHA-256 is compared first; what is broken is set aside and named.
"""

import errno
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from common.cli.errors import reader_was_killed
from common.text.files import write_json

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Put checksums.json beside the files of `folder`, which all are written."""
    write_json(folder / CHECKSUMS, {name: _checksum(folder / name) for name in _files(folder)})


def validate_state(folder: Path, needed: str) -> str:
    """-> '' for a whole state. needed: the file that must be there where nothing kept checksums, as in older runs."""
    try:
        if not (folder / CHECKSUMS).is_file():
            return "" if json.loads((folder / needed).read_text(encoding="utf-8")) else f"{needed} is empty"
        expected = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        for name, checksum in expected.items():
            if _checksum(folder / name) != checksum:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError) as error:
        return f"cannot be read ({' '.join(str(error).split())})"
    return ""


@contextmanager
def atomic_save(folder: Path, kept: str, shown: Path | None = None) -> Iterator[None]:
    """Write a state into `folder` within; where that fails the folder goes, and one line says what is `kept`.

    shown: the folder to name in that line, if not this one.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if reader_was_killed(error):
            raise
        message = f"could not be written, is the disk full? ({error}); {kept}"
        raise OSError(errno.ENOSPC, message, str(shown or folder)) from None


def promote_state(partial: Path, last: Path) -> None:
    """The whole state in `partial` becomes `last`, and that becomes last.older; a kill in between leaves one whole."""
    older = last.with_name("last.older")
    shutil.rmtree(older, ignore_errors=True)
    if last.exists():
        last.rename(older)
    partial.rename(last)


def ensure_valid_state(last: Path, needed: str = "progress.json") -> None:
    """See to it that `last` is whole: a broken one becomes last.broken, and another takes its place.

    That is last.older or, after a kill while they changed places, last.partial: with its checksums it is whole too.
    """
    others = [last.with_name("last.older")]
    if (last.with_name("last.partial") / CHECKSUMS).is_file():
        others.insert(0, last.with_name("last.partial"))
    if not last.exists() and not any(one.exists() for one in others):
        raise FileNotFoundError(f"{last}: no state to resume from; start without --resume")
    wrong = validate_state(last, needed) if last.exists() else "is missing"
    if not wrong:
        return
    other = next((one for one in others if not validate_state(one, needed)), None)
    if other is None:
        raise ValueError(f"{last}: {wrong}, and there is no whole state before it; start without --resume")
    if last.exists():
        broken = last.with_name("last.broken")
        print(f"{last}: {wrong}; kept as {broken}, going on from {other}", file=sys.stderr)
        shutil.rmtree(broken, ignore_errors=True)
        last.rename(broken)
    other.rename(last)


def latest_valid_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint-N that is whole; newer ones that are broken are named on stderr.

    One without checksums is whole where none before it has any, as in older runs; otherwise it broke off.
    """
    numbers = {path.name.removeprefix("checkpoint-"): path for path in Path(output_dir).glob("checkpoint-*")}
    found = [numbers[number] for number in sorted((one for one in numbers if one.isdigit()), key=int)]
    while found:
        newest = found.pop()
        wrong = validate_state(newest, "trainer_state.json")
        if not (newest / CHECKSUMS).is_file() and any((one / CHECKSUMS).is_file() for one in found):
            wrong = "was not written to its end"
        if not wrong:
            return newest
        print(f"left out: {newest}: {wrong}", file=sys.stderr)
    return None


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
