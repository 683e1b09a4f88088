"""Pictures of a run: the right curves, neighbours framed in the right colour."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.training.plots import curve_labels, neighbour_grid, plot_curves


def test_curves_are_drawn_for_whatever_the_history_holds(tmp_path):
    history = [{"epoch": e, "step": e, "train/loss": 1 / e, "train/style": 1 / e, "train/mask": 2 / e} for e in (1, 2)]
    panels = {"loss": ["train/loss"], "parts": ["train/style", "train/mask"], "score [0, 1]": ["val/auc", "val/none"]}
    plot_curves(tmp_path / "two.png", history, panels)
    plot_curves(tmp_path / "three.png", [{**entry, "val/auc": 0.5} for entry in history], panels)
    plot_curves(tmp_path / "one.png", [{"epoch": 1, "step": 1, "train/loss": 1.0}], panels)
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("one", "two", "three")]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize(
    "names, labels",
    [
        (["train/style_hit", "val/style_hit"], ["train", "val"]),
        (["train/style", "train/mask"], ["style", "mask"]),
        (["train/a", "val/a", "val/b"], ["train a", "val a", "val b"]),
    ],
)
def test_curves_of_one_panel_have_different_names(names, labels):
    assert curve_labels(names) == labels


@pytest.mark.parametrize("epochs", [1, 2, 8, 12])
def test_epochs_are_whole_numbers(tmp_path, monkeypatch, epochs):
    figures = []
    monkeypatch.setattr("common.training.plots.save_figure", lambda figure, _: figures.append(figure))
    plot_curves(
        "", [{"epoch": epoch, "train/loss": 1 / epoch} for epoch in range(1, epochs + 1)], {"loss": ["train/loss"]}
    )
    axis = figures[0].axes[0]
    ticks = [tick for tick in axis.get_xticks() if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
    assert ticks and all(tick == round(tick) for tick in ticks)


def test_neighbours_are_framed_by_their_class():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0.8, 0.3], [0, 1.0]]), dim=1)
    sheet = neighbour_grid(lambda index: np.zeros((8, 8, 3), np.uint8), vectors, [0, 0, 1, 1], columns=4, side=8)
    assert sheet.shape == (2 * 14, 4 * 14, 3)
    frames = [[sheet[row * 14, column * 14].tolist() for column in range(4)] for row in range(2)]
    green, red, white = [46, 160, 67], [207, 34, 46], [255, 255, 255]
    assert frames[0] == [white, green, red, red]  # class 0: its own kind is nearest
    assert frames[1] == [white, red, red, green]  # class 1: asked with image 2, and 3 is far
