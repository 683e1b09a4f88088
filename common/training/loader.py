"""Data loaders of training: the default number of worker processes, and a random generator of their own.

An error in a sample names its file, in this process and in a worker: it is a note of the exception.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from common.training.stop_signals import obey_main_process

Item = TypeVar("Item")
Result = TypeVar("Result")


def make_loader(
    dataset: Dataset,
    batch_sampler: Iterable[list[Any]],
    device: torch.device,
    num_workers: int = -1,
    collate_fn: Callable | None = None,
) -> DataLoader:
    """num_workers: -1 = choose_num_workers(device)."""
    num_workers = choose_num_workers(device) if num_workers < 0 else num_workers
    return DataLoader(
        NamedSamples(dataset),
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=collate_fn,
        persistent_workers=num_workers > 0,
        worker_init_fn=LoaderProcess(),
        pin_memory=device.type != "cpu",
        generator=torch.Generator(),  # the global one belongs to the model, and its state to exact resume
    )


def choose_num_workers(device: torch.device) -> int:
    """0 on a CPU, where workers would only compete with the model for its cores; else up to 8."""
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def in_processes(function: Callable[[Item], Result], items: Sequence[Item], most: int = 8) -> Iterator[Result]:
    """function(item) of each, in order; of several items by as many loader processes as there are cores, or `most`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS lacks it
    processes = min(len(items), cores, most)
    yield from DataLoader(
        _Results(function, items),
        batch_size=None,
        num_workers=processes if processes > 1 else 0,
        collate_fn=_unchanged,
        worker_init_fn=LoaderProcess(),
        generator=torch.Generator(),
    )


class _Results(Dataset):
    def __init__(self, function: Callable, items: Sequence):
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.items[index])


def _unchanged(result: Any) -> Any:
    return result


class NamedSamples(Dataset):
    """A data set with file_of(index): an exception of a sample says in a note which file it is of."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while it is unpickled in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, key: Any) -> Any:
        with naming(lambda: self.dataset.file_of(key.index)):
            return self.dataset[key]


@contextmanager
def naming(files: Callable[[], str]) -> Iterator[None]:
    """Within the block, an exception gets a note with the files that are read there, unless it names them itself."""
    try:
        yield
    except Exception as error:
        if (names := files()) not in str(error):
            error.add_note(f"in {names}")
        raise


class LoaderProcess:
    """worker_init_fn of a data loader. earlier: another one, called first."""

    def __init__(self, earlier: Callable[[int], None] | None = None):
        self.earlier = earlier

    def __call__(self, worker: int) -> None:
        obey_main_process()
        if self.earlier:
            self.earlier(worker)
