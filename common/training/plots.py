"""Plots of a run: training curves, nearest neighbours, TensorBoard's embedding projector."""

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps
from torch.utils.tensorboard import SummaryWriter

from common.images.contact_sheet import CJK_FONTS, Cell, contact_sheet
from common.images.transforms import square
from common.text.files import write_atomically

GREEN, RED = "#2ea043", "#cf222e"
COLUMNS, PANEL = 2, (3.7, 3.0)  # panels in a row; inches: two in a row with this font can be read on a phone
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
READABLE: Any = {
    "font.family": ["DejaVu Sans", *[name for name in CJK_FONTS if name in INSTALLED][:1]],  # names of folders
    "font.size": 11,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=COLOURS),
    "axes.formatter.limits": (-3, 5),
    "legend.fontsize": "small",
    "legend.title_fontsize": "medium",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
}
readable = matplotlib.rc_context(READABLE)  # decorator of a function that draws a figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG. A matplotlib.figure.Figure made without pyplot needs no display and no closing."""
    with write_atomically(path) as file, warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing")  # one for each character
        figure.savefig(file, format="png", dpi=120)
    for warning in caught:
        if "Glyph" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any("Glyph" in str(warning.message) for warning in caught):
        print(f"{path}: no font here has all its characters; install one such as {CJK_FONTS[0]}", file=sys.stderr)


def panel_figure(count: int, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """`count` panels of a size in inches, COLUMNS in a row."""
    columns, rows = min(count, COLUMNS), math.ceil(count / COLUMNS)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def legend_above(axis: Axes, title: str, columns: int = 2) -> None:
    """The panel's title with its legend, above the panel, where they hide nothing."""
    axis.legend(title=title, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, alignment="left", borderpad=0)


@readable
def plot_curves(
    path: str | Path,
    history: Sequence[Mapping[str, float]],
    panels: Mapping[str, Sequence[str] | Mapping[str, str]],
    baselines: Mapping[str, float] = {},
    baseline: str = "chance",
) -> None:
    """One panel per title over epochs; each history entry holds 'epoch' and some of the panel's names ('train/loss').

    panels: title -> names, or {name: label}. Panels without values are omitted; a title that ends in '[0, 1]' or
    '[0, 100]' fixes the panel's range. baselines: name -> a value to compare its curve with, all of one kind,
    `baseline`; drawn dotted in the curve's colour.
    """
    present = {name for entry in history for name in entry}
    labelled = {
        title: dict(names) if isinstance(names, Mapping) else dict(zip(names, curve_labels(names)))
        for title, names in panels.items()
    }
    shown = {title: labels for title, labels in labelled.items() if present & labels.keys()}
    figure, axes = panel_figure(len(shown))
    for axis, (title, labels) in zip(axes, shown.items()):
        title, _, limits = title.partition(" [0, ")
        names = [name for name in labels if name in present]
        for name in names:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            (line,) = axis.plot(*zip(*points), marker="o", markersize=3, label=labels[name])
            if name in baselines:
                axis.axhline(baselines[name], color=line.get_color(), linestyle=(0, (1, 2)))
        if not baselines.keys().isdisjoint(names):
            axis.plot([], [], color="grey", linestyle=(0, (1, 2)), label=baseline)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            legend_above(axis, title)
        else:
            axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        if limits:
            axis.set_ylim(0, 1.02 * float(limits.rstrip("]")))
    save_figure(figure, path)


def curve_labels(names: Iterable[str]) -> list[str]:
    """What tells a panel's names apart: of train/loss and val/loss the splits, of train/a and train/b a and b."""
    pairs = [name.split("/") for name in names]
    splits, values = [pair[0] for pair in pairs], [pair[1].replace("_", " ") for pair in pairs]
    if len(set(splits)) == 1:
        return values
    return splits if len(set(values)) == 1 else [" ".join(pair) for pair in zip(splits, values)]


def neighbour_sheet(
    pictures: Callable[[int], np.ndarray],
    vectors: torch.Tensor,
    labels: Sequence[int],
    names: Sequence[str],
    rows: int = 8,
    columns: int = 6,
    side: int = 80,
) -> Image.Image:
    """First column: one query per class. The others: its nearest neighbours, framed green for the same class, else red.
    The name of its class is below each.

    pictures(index) -> (H, W, 3) uint8; vectors (N, D) unit length; names: of the classes, by label.
    """
    classes = torch.as_tensor(labels)
    queries = [int((classes == label).nonzero()[0]) for label in classes.unique()][:rows]
    similarity = vectors[queries] @ vectors.T  # (Q, N)
    similarity[torch.arange(len(queries)), queries] = -torch.inf
    columns = min(columns, len(labels))
    nearest = similarity.topk(columns - 1).indices.tolist()

    def cell(index: int, colour: str) -> Cell:
        picture = ImageOps.expand(Image.fromarray(square(pictures(index), side - 6)), 3, colour)
        return Cell([picture], names[labels[index]].replace("_", " "))

    cells = []
    for query, neighbours in zip(queries, nearest):
        cells.append(cell(query, "white"))
        cells += [cell(index, GREEN if labels[index] == labels[query] else RED) for index in neighbours]
    return contact_sheet({"": cells}, columns, side)


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
