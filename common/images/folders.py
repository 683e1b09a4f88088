"""Image files below a folder.

folder -> paths, and {what is skipped: reason}
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.cli.errors import printable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_ROUTES = 8  # to a folder, over links; links to links to links would multiply without end


def list_images(folder: str | Path, skipped: dict[str, str] | None = None) -> list[Path]:
    """All image files below `folder`, sorted by path; an error if there is none.

    skipped: collects {what cannot be used: reason}.
    """
    skipped = {} if skipped is None else skipped
    if paths := sorted(walk_images(Path(folder), skipped)):
        return paths
    raise FileNotFoundError(
        f"{printable(folder)}: no image below it; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        + first_skipped(skipped)
    )


def first_skipped(skipped: dict[str, str]) -> str:
    """The end of an error, where nothing is left."""
    return "".join(f"; skipped {name}: {reason}" for name, reason in list(skipped.items())[:1])


def walk_images(folder: Path, skipped: dict[str, str]) -> Iterator[Path]:
    """The files below `folder` that are named like images, in no order. skipped: collects what is no file, folders that
    cannot be listed, and names that are not UTF-8.

    Hidden files and folders are skipped, and __MACOSX, which a Mac's archives add. Links to folders are followed, but
    not back to one that the walk came through.
    """
    routes: Counter[Path] = Counter()
    pending: list[tuple[Path, tuple[Path, ...]]] = [(folder, ())]
    while pending:
        folder, above = pending.pop()
        try:
            real, entries = folder.resolve(), list(folder.iterdir())
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, up to Python 3.12
            skipped[printable(folder)] = f"cannot be listed ({_reason(error)})"
            continue
        if any(parent.is_relative_to(real) for parent in above):
            continue
        routes[real] += 1
        if routes[real] > MAX_ROUTES:
            skipped[printable(folder)] = f"links lead to this folder on more than {MAX_ROUTES} ways"
            continue
        for path in entries:
            if path.name.startswith(".") or path.name == "__MACOSX":
                continue
            try:
                is_folder = path.is_dir()
                if is_folder or path.suffix.lower() in IMAGE_SUFFIXES:
                    path.name.encode()
                    if is_folder:
                        pending.append((path, (*above, real)))
                    elif path.is_file():
                        yield path
                    else:
                        skipped[printable(path)] = no_file(path)
            except UnicodeEncodeError:
                skipped[printable(path)] = "its name is not UTF-8; rename it"
            except OSError as error:
                skipped[printable(path)] = f"cannot be read ({_reason(error)})"


def no_file(path: Path) -> str:
    """What is there in place of a file."""
    if path.is_dir():
        return "is a folder, not an image"
    if path.exists():
        return "not a regular file"
    return "a link to a file that does not exist" if path.is_symlink() else "no such file"


def _reason(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "a link to itself"
