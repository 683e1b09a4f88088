"""Which of many names are files, and which of them are links to the same file.

folder, names (N,) below it -> is_file (N,), codes (N,) equal for links to one file

A folder that holds many of the names is listed once, since a question for each file takes a thousandth of a second on a
network disk. Paths are plain strings: a million Path objects would take seconds.
"""
# ruff: noqa: PTH113, PTH114, PTH115, PTH118

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

MAX_LINKS = 40  # one after the other, as on Linux
LISTED = 64  # names in a folder from which listing it takes less time


def find_files(root: str | os.PathLike[str], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """names: different ones, normalised."""
    numbers_in: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        numbers_in[os.path.join(root, name.rpartition("/")[0])].append(number)
    is_file, codes, links = np.zeros(len(names), bool), np.arange(len(names)), set[int]()
    for folder, numbers in numbers_in.items():
        listing = _list_files(folder) if len(numbers) >= LISTED else {}
        for number in numbers:
            name = names[number].rpartition("/")[2]
            is_link = listing.get(name)
            is_file[number] = is_link is not None
            if is_link is None:  # a file too, where its system takes other names for it, such as in upper case
                path = os.path.join(folder, name)
                is_file[number], is_link = os.path.isfile(path), os.path.islink(path)
            if is_link:
                links.add(number)
    real = RealPaths()
    if links or len({real[folder] for folder in numbers_in}) < len(numbers_in):
        first: dict[str, int] = {}  # number of the first name for a file
        for number, name in enumerate(names):
            path = os.path.join(root, name)
            codes[number] = first.setdefault(real.of(path, number in links), number)
    return is_file, codes


class RealPaths(dict[str, str]):
    """Real paths of folders, each resolved once, and of the files in them."""

    def __missing__(self, folder: str) -> str:
        self[folder] = real = os.path.realpath(folder)
        return real

    def of(self, path: str, is_link: bool) -> str:
        """os.path.realpath of a file."""
        for _ in range(MAX_LINKS):
            folder, name = os.path.split(path)
            path = os.path.join(self[folder], name)
            try:
                if not is_link:
                    break
                path = os.path.join(self[folder], os.readlink(path))
            except OSError:  # the file at the end
                break
        return path


def _list_files(folder: str) -> dict[str, bool]:
    """-> {name of a file: whether it is a link}; {} for a folder that cannot be listed."""
    files = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file():
                    files[entry.name] = entry.is_symlink()
            except OSError:  # a link to itself
                continue
    return files
