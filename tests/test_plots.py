"""Pictures of a run: the right curves, each with a name of its own, neighbours framed in the right colour."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageColor

from common.training.plots import GREEN, RED, curve_labels, neighbour_sheet, panel_figure, plot_curves, save_figure
from style_curves import plot_style_curves


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in place of files."""
    drawn = []
    monkeypatch.setattr("common.training.plots.save_figure", lambda figure, _: drawn.append(figure))
    return drawn


def panels_of(figure):
    """{title: (labels of the curves, legend)} of the panels that are drawn."""
    found = {}
    for axis in figure.axes:
        if axis.axison:
            legend = axis.get_legend()
            title = legend.get_title().get_text() if legend else ""
            found[title or axis.get_title(loc="left")] = [text.get_text() for text in legend.texts] if legend else []
    return found


def test_curves_are_drawn_for_whatever_the_history_holds(figures):
    history = [{"epoch": e, "step": e, "train/loss": 1 / e, "train/style": 1 / e, "train/mask": 2 / e} for e in (1, 2)]
    panels = {
        "loss": ["train/loss"],
        "parts": ["train/style", "train/mask"],
        "score [0, 1]": {"val/auc": "AUC", "val/none": "none"},
    }
    plot_curves("", history, panels)
    plot_curves("", [{**entry, "val/auc": 0.5} for entry in history], panels, {"val/auc": 0.5})
    assert panels_of(figures[0]) == {"loss": [], "parts": ["style", "mask"]}
    assert panels_of(figures[1]) == {"loss": [], "parts": ["style", "mask"], "score": ["AUC", "chance"]}
    assert figures[1].get_size_inches()[0] <= 7.4  # wider, and its text is too small on a phone


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


def test_twelve_curves_differ_and_legends_hide_none(figures):
    names = [f"train/part_{number}" for number in range(12)]
    plot_curves("", [{"epoch": e, **dict.fromkeys(names, 1.0)} for e in (1, 2)], {"parts": names})
    (axis,) = figures[0].axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.get_lines()}) == 12
    figures[0].draw_without_rendering()
    assert axis.get_legend().get_window_extent().y0 >= axis.get_window_extent().y1


def test_styles_are_drawn_beside_a_baseline(figures):
    history = [{"epoch": 1, "train/loss": 1.0, "val/style_auc": 0.9, "val/style_map_at_r": 0.5}]
    plot_style_curves(Path(), history)
    untrained = {"style": {"auc": 0.7, "map_at_r": 0.2, "interval": {}}, "content": {}}
    plot_style_curves(Path(), history, untrained)
    assert [list(panels_of(figure).values())[1] for figure in figures] == [
        ["AUC", "MAP@R", "chance"],
        ["AUC", "MAP@R", "untrained backbone"],
    ]


@pytest.mark.parametrize("epochs", [1, 2, 8, 12])
def test_epochs_are_whole_numbers(figures, epochs):
    plot_curves(
        "", [{"epoch": epoch, "train/loss": 1 / epoch} for epoch in range(1, epochs + 1)], {"loss": ["train/loss"]}
    )
    axis = figures[0].axes[0]
    ticks = [tick for tick in axis.get_xticks() if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]]
    assert ticks and all(tick == round(tick) for tick in ticks)


def test_characters_without_a_font_are_one_line(tmp_path, capsys, recwarn):
    figure, (axis,) = panel_figure(1)
    axis.set_title("\U00012000\U00012001")  # cuneiform
    save_figure(figure, tmp_path / "a.png")
    assert not recwarn and capsys.readouterr().err.count("\n") == 1


def test_neighbours_are_framed_by_their_class():
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0.8, 0.3], [0, 1.0]]), dim=1)
    names = ["pixel_art", "chalk"]
    sheet = neighbour_sheet(lambda _: np.zeros((8, 8, 3), np.uint8), vectors, [0, 0, 1, 1], names, columns=4, side=20)
    assert sheet.width == 4 * 32 + 12
    tops = [12, sheet.height // 2 + 6]
    frames = [[sheet.getpixel((12 + column * 32, top)) for column in range(4)] for top in tops]
    green, red, white = (ImageColor.getrgb(colour) for colour in (GREEN, RED, "white"))
    assert frames[0] == [white, green, red, red]  # class 0: its own kind is nearest
    assert frames[1] == [white, red, red, green]  # class 1: its query is image 2, and 3 is far
