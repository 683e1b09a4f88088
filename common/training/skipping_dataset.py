"""Data sets that replace a sample which turns out to be broken when it is read by another one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from common.images.transforms import SampleKey


class SkippingDataset(Dataset):
    """dataset[key] -> read(key), or in place of a broken sample that of the next index of `substitutes`.

    read(key) is None for a broken sample, which it has named in a SkipLog. Which sample takes its place is a pure
    function of the files: equal on all processes, and after a resume. key: an index or a SampleKey.
    """

    def __getitem__(self, key: int | SampleKey) -> Any:
        index = key.index if isinstance(key, SampleKey) else int(key)
        for candidate in self.substitutes(index):
            sample = self.read(replace(key, index=candidate) if isinstance(key, SampleKey) else candidate)
            if sample is not None:
                return sample
        raise ValueError("no sample can be read")

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def read(self, key: Any) -> Any:
        raise NotImplementedError

    def substitutes(self, index: int) -> Iterator[int]:
        """The index itself, then those that take its place, in their order."""
        return ((index + step) % len(self) for step in range(len(self)))

    def __len__(self) -> int:
        raise NotImplementedError
