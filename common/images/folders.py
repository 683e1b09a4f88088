"""Image files below a folder.

folder -> paths, and {what is skipped: reason}
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.cli.errors import printable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".pgm")
MAX_ROUTES = 8  # to a folder, over links; links to links to links would multiply without end


def list_images(folder: str | Path, skipped: dict[str, str] | None = None) -> list[Path]:
    """All image files below `folder`, sorted by path; an error if there is none. skipped: as of walk_images."""
    skipped = {} if skipped is None else skipped
    if paths := sorted(walk_images(Path(folder), skipped)):
        return paths
    raise FileNotFoundError(
        f"{printable(folder)}: no image below it; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        + "".join(f"; skipped {name}: {reason}" for name, reason in list(skipped.items())[:1])
    )


def walk_images(folder: Path, skipped: dict[str, str]) -> Iterator[Path]:
    """Every file below `folder` that is named like an image, in no order. skipped: collects what cannot be used.

    Hidden files and folders are left out, and __MACOSX, which a Mac's archives add. Links to folders are followed, but
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
            is_image = path.suffix.lower() in IMAGE_SUFFIXES
            try:
                if path.is_dir():
                    path.name.encode()
                    pending.append((path, (*above, real)))
                elif is_image and not path.is_file():
                    skipped[printable(path)] = _missing(path)
                elif is_image:
                    path.name.encode()
                    yield path
            except UnicodeEncodeError:
                skipped[printable(path)] = "its name is not UTF-8; rename it"
            except OSError as error:
                skipped[printable(path)] = f"cannot be read ({_reason(error)})"


def _missing(path: Path) -> str:
    return "a link to a file that does not exist" if path.is_symlink() else "not a regular file"


def _reason(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "a link to itself"
