"""Samples of the style encoder as columns: a million take about 150 MB, and a Sample is made when it is read."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from targets import TARGETS

MARK = "_img"


@dataclass(frozen=True)
class Sample:
    image: Path
    style: str  # folder name
    name: str  # path below the style folder, without _img and suffix
    targets: dict[str, Path] = field(default_factory=dict)  # of TARGETS, those whose file exists

    def beside(self, ending: str) -> Path:
        """A file that belongs to the image, in its folder."""
        return self.image.with_name(self.image.stem.removesuffix(MARK) + ending)


class SampleTable(Sequence[Sample]):
    """Images below `root` by their paths (N) relative to it, with '/'; bit k of targets (N,) uint8: has TARGETS[k].

    skipped: {what the folder holds that is not used: reason}.
    """

    def __init__(self, root: Path, paths: list[str], targets: np.ndarray, skipped: dict[str, str] | None = None):
        self.root, self.paths, self.targets, self.skipped = root, paths, targets, skipped or {}

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "SampleTable": ...
    def __getitem__(self, index: int | slice) -> "Sample | SampleTable":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        path = self.paths[index]
        style, _, below = path.partition("/")
        sample = Sample(self.root / path, style, _name(below))
        kinds = (kind for bit, kind in enumerate(TARGETS) if self.targets[index] >> bit & 1)
        sample.targets.update({kind: sample.beside(f"_{kind}.pt") for kind in kinds})
        return sample

    def select(self, indices: Iterable[int]) -> "SampleTable":
        chosen = list(indices)
        return SampleTable(self.root, [self.paths[index] for index in chosen], self.targets[chosen], self.skipped)

    def without(self, images: Iterable[str]) -> "SampleTable":
        """images: paths, of any files."""
        names = {os.path.relpath(image, self.root) for image in images}
        return self.select(index for index, path in enumerate(self.paths) if path not in names)

    @property
    def images(self) -> "ImagePaths":
        return ImagePaths(self)

    @property
    def styles(self) -> list[str]:
        return [path.partition("/")[0] for path in self.paths]

    @property
    def names(self) -> list[str]:
        return [_name(path.partition("/")[2]) for path in self.paths]

    @cached_property
    def file_sizes(self) -> dict[str, np.ndarray]:
        """image and each of TARGETS -> bytes of the files (N,) int64; -1 where there is none."""
        sizes = {kind: np.full(len(self), -1, np.int64) for kind in ("image", *TARGETS)}
        start = str(self.root / "_")[:-1]
        for index, path in enumerate(self.paths):
            sizes["image"][index] = os.stat(start + path).st_size  # noqa: PTH116, a Path takes as long as the question
        for index in np.flatnonzero(self.targets).tolist():
            for kind, target in self[index].targets.items():
                sizes[kind][index] = target.stat().st_size
        return sizes

    def identities(self) -> Iterator[tuple[Any, ...]]:
        """What tells that a sample is the same, wherever its folder lies: names, and sizes of files in bytes."""
        sizes = self.file_sizes
        for index, path in enumerate(self.paths):
            style, _, below = path.partition("/")
            targets = {kind: int(sizes[kind][index]) for kind in TARGETS if sizes[kind][index] >= 0}
            yield style, _name(below), path[path.rindex(".") :], int(sizes["image"][index]), targets


class ImagePaths(Sequence[Path]):
    """The paths of a table's images."""

    def __init__(self, table: SampleTable):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        return self.table.root / self.table.paths[index]


def _name(below: str) -> str:
    """Path below a style folder -> the content."""
    return below.rpartition(".")[0].removesuffix(MARK)
