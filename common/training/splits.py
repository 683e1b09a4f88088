"""Groups of samples that belong on one side of a split, since they share an image.

keys of each sample (its images, and whatever else ties samples together) -> the number of its group
"""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

END_BYTES = 4096  # that tell most files of one size apart


def connected_groups(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """Samples that share a key, directly or through others, get one number; a sample without keys its own."""
    numbers: dict[Hashable, int] = {}
    pairs = [(sample, numbers.setdefault(key, len(numbers))) for sample, row in enumerate(keys) for key in row]
    samples, codes = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return connect(samples, codes, len(keys)).tolist()


def connect(samples: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Sample (P,) in 0..count-1 and code (P,) from 0 of each of its keys -> number of its group (count,).

    Groups are numbered in the order of their first samples.
    """
    size = count + int(codes.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(codes), dtype=bool), (samples, count + codes)), shape=(size, size))
    return connected_components(graph, directed=False)[1][:count]


def draw_groups(groups: Sequence[int] | np.ndarray, order: Iterable[int], target: int) -> set[int]:
    """Groups to hold out: the first of `order`, as long as they have at most `target` samples together. What exceeds
    them by itself is passed over."""
    sizes, drawn, total = np.bincount(groups), set(), 0
    for group in order:
        if total + sizes[group] <= target:
            drawn.add(group)
            total += sizes[group]
        elif drawn:
            break
    return drawn


def real_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """-> {path: a path that is equal for all links to a file, and for all files with equal content}."""
    real = {path: os.path.realpath(path) for path in paths}
    candidates = [[Path(name) for name in sorted(set(real.values()))]]
    for key in (_size, _ends, _digest):  # whole files are read only where size and ends are equal
        candidates = [group for names in candidates for group in _partition(names, key)]
    first = {str(name): str(names[0]) for names in candidates for name in names}
    return {path: first.get(name, name) for path, name in real.items()}


def _partition(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Groups of two and more with an equal key."""
    groups = defaultdict(list)
    for path in filter(Path.is_file, paths):
        groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        start = file.read(END_BYTES)
        file.seek(-len(start), os.SEEK_END)
        return start, file.read()


def _digest(path: Path) -> bytes:
    return blake2b(path.read_bytes()).digest()
