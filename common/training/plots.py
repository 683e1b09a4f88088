"""Plots of a run: training curves, nearest neighbours, TensorBoard's embedding projector."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch.utils.tensorboard import SummaryWriter

from common.images.transforms import square
from common.text.files import write_atomically

GREEN, RED = "#2ea043", "#cf222e"


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG. A matplotlib.figure.Figure made without pyplot needs no display and no closing."""
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)


def plot_curves(path: str | Path, history: list[dict[str, float]], panels: dict[str, list[str]]) -> None:
    """One panel per title over epochs; each history entry holds 'epoch' and some of the panel's names ('train/loss').

    Panels without values are omitted; a title that ends in '[0, 1]' or '[0, 100]' fixes the panel's range.
    """
    present = {name for entry in history for name in entry}
    panels = {title: [name for name in names if name in present] for title, names in panels.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for name, label in zip(names, curve_labels(names)):
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            axis.plot(*zip(*points), marker="o", markersize=3, label=label)
        title, _, limits = title.partition(" [0, ")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if limits:
            axis.set_ylim(0, 1.02 * float(limits.rstrip("]")))
        if len(names) > 1:
            axis.legend(fontsize=8)
    save_figure(figure, path)


def curve_labels(names: list[str]) -> list[str]:
    """What tells a panel's names apart: of train/loss and val/loss the splits, of train/a and train/b a and b."""
    splits = [name.split("/")[0] for name in names]
    values = [name.split("/")[1].removeprefix("style_").removeprefix("content_").replace("_", " ") for name in names]
    if len(set(splits)) == 1:
        return values
    return splits if len(set(values)) == 1 else [" ".join(pair) for pair in zip(splits, values)]


def neighbour_grid(
    pictures: Callable[[int], np.ndarray],
    vectors: torch.Tensor,
    labels: Sequence[int],
    rows: int = 8,
    columns: int = 7,
    side: int = 72,
) -> np.ndarray:
    """First column: one query per class. The others: its nearest neighbours, framed green for the same class, else red.

    pictures(index) -> (H, W, 3) uint8; vectors (N, D) unit length -> (height, width, 3) uint8.
    """
    classes = torch.as_tensor(labels)
    queries = [int((classes == label).nonzero()[0]) for label in classes.unique()][:rows]
    similarity = vectors[queries] @ vectors.T  # (Q, N)
    similarity[torch.arange(len(queries)), queries] = -torch.inf
    nearest = similarity.topk(min(columns - 1, len(labels) - 1)).indices.tolist()

    def tile(index: int, colour: str) -> np.ndarray:
        return np.asarray(ImageOps.expand(Image.fromarray(square(pictures(index), side)), 3, colour))

    grid = []
    for query, neighbours in zip(queries, nearest):
        colours = [GREEN if labels[index] == labels[query] else RED for index in neighbours]
        grid.append(np.hstack([tile(query, "white"), *map(tile, neighbours, colours)]))
    return np.vstack(grid)


def write_projector(
    writer: SummaryWriter,
    vectors: torch.Tensor,
    pictures: Callable[[int], np.ndarray],
    labels: Sequence[str],
    step: int,
    limit: int = 1000,
) -> None:
    """TensorBoard's embedding projector with labels and thumbnails of up to `limit` images."""
    chosen = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:limit].tolist()
    thumbnails = torch.from_numpy(np.stack([square(pictures(index), 32) for index in chosen])).permute(0, 3, 1, 2)
    writer.add_embedding(vectors[chosen], [labels[index] for index in chosen], thumbnails / 255, step, tag="style")
