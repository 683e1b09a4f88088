"""Resume states on disk: complete, unchanged since they were written, and with a previous one to fall back on.

last.partial/ -> last/ -> last.older/       each with checksums.json, which is written last
checkpoint-N/                               of Hugging Face's Trainer, the same

A power cut, a full disk, a bad sector or an interrupted copy leaves a folder that looks complete. Resuming from it
fails late or, worse, does not fail. So the SHA-256 of every file is compared first; damaged states are kept and named.
"""

import errno
import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from common.cli.failures import explain_failure
from common.text.files import write_json
from common.text.schema import read_checked
from common.training.distributed import rank

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Complete a state: write the checksums of all its files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    write_json(folder / CHECKSUMS, {path.relative_to(folder).as_posix(): _checksum(path) for path in paths})


def find_damage(folder: Path) -> str:
    """-> what is wrong with a state, '' if it is valid."""
    if not (folder / CHECKSUMS).is_file():
        return f"{CHECKSUMS} is missing"
    try:
        for name, checksum in read_checked(folder / CHECKSUMS, dict[str, str]).items():
            if (folder / name).exists() and not (folder / name).is_file():  # as a pipe, which would be waited for
                return f"{name} is not a file"
            if _checksum(folder / name) != checksum:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({' '.join(str(error).split())})"
    return ""


@contextmanager
def atomic_save(folder: Path, kept: str, shown: Path | None = None) -> Iterator[None]:
    """Write a state into `folder` within the block; a failure removes it, and its message says what is `kept`.

    shown: the folder to name in the message, if not this one.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if explain_failure(error):  # of memory or of another process: not of the disk
            raise
        raise OSError(
            errno.ENOSPC, f"could not be written, is the disk full? ({error}); {kept}", str(shown or folder)
        ) from None


def promote_state(partial: Path, last: Path) -> None:
    """The state in `partial` becomes `last`, and `last` becomes last.older; a kill in between leaves one complete."""
    older = last.with_name("last.older")
    shutil.rmtree(older, ignore_errors=True)
    if last.exists():
        last.rename(older)
    partial.rename(last)


def ensure_valid_state(last: Path) -> None:
    """If `last` is missing or damaged, replace it by a valid state; a damaged one is kept as last.broken.

    The replacement is last.partial, which is complete after a kill during the renames, or else last.older.
    """
    partial, older, broken = (last.with_name(f"last.{name}") for name in ("partial", "older", "broken"))
    damage = find_damage(last) if last.exists() else "is missing"
    if not damage:
        return
    replacement = next((other for other in (partial, older) if not find_damage(other)), None)
    if replacement is None and not last.exists() and not older.exists():
        raise FileNotFoundError(f"{last}: no state to resume from; start without --resume")
    if replacement is None:
        raise ValueError(f"{last}: {damage}, and there is no valid state before it; start without --resume")
    if last.exists():
        print(f"{last}: {damage}; kept as {broken}, resuming from {replacement}", file=sys.stderr)
        shutil.rmtree(broken, ignore_errors=True)
        last.rename(broken)
    replacement.rename(last)


def latest_valid_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest valid checkpoint-N; newer damaged ones are named on stderr."""
    numbers = {path.name.removeprefix("checkpoint-"): path for path in Path(output_dir).glob("checkpoint-*")}
    for number in sorted(filter(str.isdigit, numbers), key=int, reverse=True):
        if not (damage := find_damage(numbers[number])):
            return numbers[number]
        print(f"skipped: {numbers[number]}: {damage}", file=sys.stderr)
    return None


def has_random_states(state: Path, pattern: str, processes: int) -> bool:
    """Whether a state was saved by as many processes as resume it; if not, their random states start anew.

    pattern: of the files of random states, one a process. Trainer and accelerate would silently continue
    with whatever the generators hold.
    """
    saved = len(list(state.glob(pattern)))
    if saved == processes:
        return True
    if rank() == 0:
        print(
            f"{state}: saved by {saved} process(es), resumed by {processes}: the same batches, other random numbers "
            "for dropout",
            file=sys.stderr,
        )
    return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
