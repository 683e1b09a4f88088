"""Git LFS pointers: the three lines of text that a clone without LFS leaves in the place of a large file."""

from pathlib import Path

START = b"version https://git-lfs"
HINT = "a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned"


def is_pointer(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(START)) == START
