"""Drawn pictures: objects fill their boxes, styles differ in texture, sheets show them all."""

import numpy as np
import pytest
from PIL import Image

from common.samples.canvas import Canvas
from common.samples.layouts import draw_style_sheet
from common.samples.scenes import random_scene, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES


@pytest.mark.parametrize("kind", KINDS)
def test_painted_pixels_fill_their_box(kind):
    scene = single_scene(np.random.default_rng(7), kind)
    rows, columns = np.nonzero(Canvas(scene, 128, np.random.default_rng(0)).objects())
    painted = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 2  # the canvas is 256 wide
    assert np.abs(painted - np.array(scene.objects[0].box) * 128).max() < 2


@pytest.fixture(scope="module")
def drawings() -> dict[str, np.ndarray]:
    """style -> (12, 96, 96, 3), the same 12 scenes in every style."""
    some = [random_scene(np.random.default_rng(seed)) for seed in range(12)]
    return {
        style: np.stack([np.asarray(draw(s, 96, np.random.default_rng([i, j]))) for j, s in enumerate(some)])
        for i, (style, draw) in enumerate(STYLES.items())
    }


@pytest.mark.parametrize("style", STYLES)
def test_the_object_stands_out_in_its_box(style):
    """Draw with and without the object: what changes strongly is in its box, but for a stroke's width."""
    scene = single_scene(np.random.default_rng(12), "heart")
    empty = type(scene)((), (), scene.background, scene.tint)
    with_it, without = (np.asarray(STYLES[style](s, 128, np.random.default_rng(1)), float) for s in (scene, empty))
    x0, y0, x1, y1 = (round(value * 128) for value in scene.objects[0].box)
    changed = np.abs(with_it - without).max(2)
    inside = changed[y0:y1, x0:x1].mean()
    changed[max(y0 - 5, 0) : y1 + 5, max(x0 - 5, 0) : x1 + 5] = 0
    assert inside > 30 and changed.mean() < inside / 8


def nearest_neighbour_accuracy(features: dict[str, np.ndarray]) -> float:
    """The first 8 scenes of each style are known, the others are asked: other scenes, so content cannot help."""
    values = np.stack(list(features.values()))  # (styles, scenes, features)
    values = (values - values.mean((0, 1))) / (values.std((0, 1)) + 1e-6)
    known, asked = values[:, :8].reshape(-1, values.shape[-1]), values[:, 8:].reshape(-1, values.shape[-1])
    nearest = np.square(asked[:, None] - known[None]).sum(-1).argmin(1) // 8
    return float((nearest == np.repeat(np.arange(len(values)), values.shape[1] - 8)).mean())


def palette(image: np.ndarray) -> np.ndarray:
    levels = (image // 64).astype(int) @ [16, 4, 1]
    return np.sqrt(np.bincount(levels.ravel(), minlength=64) / levels.size)


def texture(image: np.ndarray) -> np.ndarray:
    """Colourless: how much neighbours at several distances differ, and how unevenly, after the contrast is set to 1."""
    grey = image.mean(2) / 255
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    found = []
    for step in (1, 2, 3, 4, 6, 8):
        for difference in (grey[step:] - grey[:-step], grey[:, step:] - grey[:, :-step]):
            absolute = np.abs(difference)
            found += [np.log(absolute.mean() + 1e-3), np.log((absolute < 0.02).mean() + 1e-2), np.log(absolute.std())]
    return np.array(found)


def test_texture_tells_styles_apart_better_than_the_palette(drawings):
    by_palette, by_texture = (
        nearest_neighbour_accuracy(
            {name: np.stack([measure(image) for image in images]) for name, images in drawings.items()}
        )
        for measure in (palette, texture)
    )
    print(f"palette {by_palette:.2f}, texture {by_texture:.2f}")
    assert by_texture > 0.8 and by_palette < 0.8 * by_texture


@pytest.mark.parametrize("size", [16, 50, 100])
def test_any_size_can_be_drawn(size):
    scene = random_scene(np.random.default_rng(0))
    assert {draw(scene, size, np.random.default_rng(0)).size for draw in STYLES.values()} == {(size, size)}


def test_pictures_differ_between_scenes_and_styles(drawings):
    pictures = {image.tobytes() for images in drawings.values() for image in images}
    assert len(pictures) == 12 * len(STYLES)


def test_the_style_sheet_has_a_row_for_each_style(tmp_path):
    draw_style_sheet(tmp_path / "sheets" / "sheet.png", num_scenes=2, size=32)
    with Image.open(tmp_path / "sheets" / "sheet.png") as sheet:
        assert sheet.width >= 2 * 32
        rows = np.array_split(np.asarray(sheet.convert("RGB")), len(STYLES))
    assert min(map(len, rows)) >= 32 and len({row.tobytes() for row in rows}) == len(STYLES)
