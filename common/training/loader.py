"""Data loaders of training: the default number of worker processes, and a random generator of their own."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset


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
        dataset,
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=collate_fn,
        persistent_workers=num_workers > 0,
        pin_memory=device.type != "cpu",
        generator=torch.Generator(),  # the global one belongs to the model, and its state to exact resume
    )


def choose_num_workers(device: torch.device) -> int:
    """0 on a CPU, where workers would only compete with the model for its cores; else up to 8."""
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
