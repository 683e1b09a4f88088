"""Image files below a folder.

folder -> paths, and {what is skipped: reason}
"""

import os
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
    """The files below `folder` that are named like images, in no order. skipped: as of walk_folders."""
    for below, names in walk_folders(folder, skipped):
        yield from (Path(below, name) for name in names)


def walk_folders(folder: Path, skipped: dict[str, str], others: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """-> each folder, the names of its files that are named like images or have one of the `others` endings, in no
    order. skipped: collects what is named like an image and is no file, folders that cannot be listed, and names that
    are not UTF-8.

    Hidden files and folders are skipped, and __MACOSX, which a Mac's archives add. Links to folders are followed, but
    not back to one that the walk came through.
    """
    routes: Counter[Path] = Counter()
    pending: list[tuple[str, tuple[Path, ...]]] = [(str(folder), ())]
    while pending:
        below, above = pending.pop()
        try:
            real, entries = Path(below).resolve(), os.scandir(below)
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, up to Python 3.12
            skipped[printable(below)] = f"cannot be listed ({_reason(error)})"
            continue
        if any(parent.is_relative_to(real) for parent in above):
            continue
        routes[real] += 1
        if routes[real] > MAX_ROUTES:
            skipped[printable(below)] = f"links lead to this folder on more than {MAX_ROUTES} ways"
            continue
        names = set[str]()
        with entries:
            for entry in entries:
                if (name := entry.name).startswith(".") or name == "__MACOSX":
                    continue
                suffix = "".join(name.rpartition(".")[1:]).lower()
                try:
                    if _is_folder(entry):
                        name.encode()
                        pending.append((entry.path, (*above, real)))
                    elif suffix in IMAGE_SUFFIXES or suffix in others:
                        name.encode()
                        if _is_file(entry):
                            names.add(name)
                        elif suffix in IMAGE_SUFFIXES:
                            skipped[printable(entry.path)] = no_file(Path(entry.path))
                except UnicodeEncodeError:
                    skipped[printable(entry.path)] = "its name is not UTF-8; rename it"
                except OSError as error:
                    skipped[printable(entry.path)] = f"cannot be read ({_reason(error)})"
        yield below, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Of links, where they lead; a link to itself leads nowhere."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def no_file(path: Path) -> str:
    """What is there in place of a file."""
    if path.is_dir():
        return "is a folder, not an image"
    if path.exists():
        return "not a regular file"
    return "a link to a file that does not exist" if path.is_symlink() else "no such file"


def _reason(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "a link to itself"
