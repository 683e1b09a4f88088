"""Pictures of a run: the right curves, neighbours framed in the right colour."""

import numpy as np
import torch
from PIL import Image

from common.training.plots import neighbour_grid, plot_curves


def test_curves_are_drawn_for_whatever_the_history_holds(tmp_path):
    history = [{"epoch": e, "step": e, "train/loss": 1 / e, "train/style": 1 / e, "train/mask": 2 / e} for e in (1, 2)]
    panels = {"loss": ["train/loss"], "parts": ["train/style", "train/mask"], "score [0, 1]": ["val/auc", "val/none"]}
    plot_curves(tmp_path / "two.png", history, panels)
    plot_curves(tmp_path / "three.png", [{**entry, "val/auc": 0.5} for entry in history], panels)
    plot_curves(tmp_path / "one.png", [{"epoch": 1, "step": 1, "train/loss": 1.0}], panels)
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("one", "two", "three")]
    assert widths[0] < widths[1] < widths[2]


def test_neighbours_are_framed_by_their_class():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0.8, 0.3], [0, 1.0]]), dim=1)
    sheet = neighbour_grid(lambda index: np.zeros((8, 8, 3), np.uint8), vectors, [0, 0, 1, 1], columns=4, side=8)
    assert sheet.shape == (2 * 14, 4 * 14, 3)
    frames = [[sheet[row * 14, column * 14].tolist() for column in range(4)] for row in range(2)]
    green, red, white = [46, 160, 67], [207, 34, 46], [255, 255, 255]
    assert frames[0] == [white, green, red, red]  # class 0: its own kind is nearest
    assert frames[1] == [white, red, red, green]  # class 1: asked with image 2, and 3 is far
