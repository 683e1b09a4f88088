"""Invented styles: pure functions, a seen effect of every parameter, styles that differ more than their contents."""

from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from common.samples.invented import bank_contents, draw, draw_bank, invented_style, main, style_seed
from common.samples.invented_contents import SUBJECTS
from common.samples.invented_style import Finish, Form, InventedStyle, Light, Paint, Pen

ICON, GLYPH, OBJECT, SCENE = range(4)  # content seeds of the four subjects
RED, BLUE, PALE = (200, 40, 50), (40, 60, 200), (240, 220, 170)
PLAIN = InventedStyle(
    ("icon",), Pen(stroke=3.0, weight=8.0), Form(), Paint((RED, BLUE, PALE), scheme="colours"), Light(), Finish()
)


def test_the_same_arguments_give_the_same_pixels():
    first = [draw(invented_style(seed), content, 48) for seed, content in ((3, 5), (8, 2), (3, 5))]
    invented_style.cache_clear()
    again = draw(invented_style(3), 5, 48)
    assert (first[0] == again).all() and (first[2] == again).all() and (first[1] != again).any()
    assert hash(invented_style(3)) == hash(replace(invented_style(3)))


def test_a_bank_is_its_styles_and_contents():
    bank, contents = draw_bank(5, 3, 32, seed=2), bank_contents(5, 3, seed=2)
    assert bank.shape == (5, 3, 32, 32, 3) and bank.dtype == np.uint8
    for number in range(5):
        style = invented_style(style_seed(2, number))
        assert all(SUBJECTS[seed % 4] in style.subjects for seed in contents[number])
        assert (bank[number, 1] == draw(style, int(contents[number, 1]), 32)).all()


def test_contents_are_shared_between_styles_and_appear_once_in_each():
    contents = bank_contents(40, 16)
    assert all(len(set(row)) == 16 for row in contents.tolist())
    shared = np.mean([np.isin(contents[i], contents[j]).mean() for i in range(40) for j in range(i)])
    assert 0.05 < shared < 0.5


@pytest.mark.slow
def test_large_banks_are_drawn_by_several_processes():
    bank, contents = draw_bank(26, 20, 16, seed=1), bank_contents(26, 20, seed=1)
    assert (bank[25, 19] == draw(invented_style(style_seed(1, 25)), int(contents[25, 19]), 16)).all()


@pytest.mark.parametrize("numbers", [(0, 4, 32), (4, 0, 32), (4, 4, 15)])
def test_an_empty_bank_is_refused(numbers):
    with pytest.raises(ValueError, match="expected 1, 1 and 16 or more"):
        draw_bank(*numbers)


@pytest.mark.parametrize("size", [16, 50, 128, 224])
def test_a_style_is_the_same_at_every_size(size):
    for content in range(4):
        picture = draw(PLAIN, content, size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        reference = Image.fromarray(draw(PLAIN, content, 128)).resize((size, size), Image.Resampling.BOX)
        assert np.abs(picture.astype(int) - np.asarray(reference)).mean() < (20 if size < 64 else 8)


def test_contents_fill_the_frame_and_stay_inside():
    extents = []
    for content in range(24):
        painted = np.nonzero((draw(PLAIN, content) < 250).any(2))
        extents.append([max(axis.max() - axis.min() + 1 for axis in painted), min(a.min() for a in painted)])
    extents = np.array(extents)
    assert np.abs(np.median(extents[:, 0]) - 116) < 4 and (extents[:, 0] > 95).all() and (extents[:, 1] > 0).all()


GRADIENT, HATCH = {"fill": "gradient"}, {"fill": "hatch"}
EFFECTS = {  # parameter: (content, parameters that it needs, another value)
    "pen": {
        "stroke": (ICON, {}, 8.0),
        "weight": (GLYPH, {}, 20.0),
        "contrast": (GLYPH, {}, 0.7),
        "angle": (GLYPH, {"contrast": 0.7}, 80.0),
        "taper": (GLYPH, {}, 0.8),
        "rough": (GLYPH, {}, 2.0),
        "soften": (ICON, {}, 3.0),
        "cap": (GLYPH, {}, "butt"),
        "join": (OBJECT, {"stroke": 9.0}, "miter"),
        "dash": (OBJECT, {}, 0.3),
        "dash_period": (OBJECT, {"dash": 0.3}, 50.0),
        "echo": (OBJECT, {}, 2),
        "hollow": (GLYPH, {"weight": 20.0}, 3.0),
        "inline": (GLYPH, {"weight": 20.0, "hollow": 3.0}, True),
    },
    "form": {
        "radius": (OBJECT, {}, 16.0),
        "cut": (OBJECT, {"radius": 12.0}, True),
        "facet": (OBJECT, {}, 60.0),
        "wobble": (OBJECT, {}, 4.0),
        "waves": (OBJECT, {"wobble": 4.0}, 8.0),
        "slant": (OBJECT, {}, 0.3),
        "stretch": (OBJECT, {}, 0.7),
        "tilt": (OBJECT, {}, 15.0),
        "flare": (OBJECT, {}, 0.3),
        "detail": (ICON, {}, 0.0),
        "serif": (GLYPH, {}, 14.0),
        "serif_weight": (GLYPH, {"serif": 14.0}, 1.0),
        "stencil": (OBJECT, {}, 8.0),
        "grid": (OBJECT, {}, 16),
    },
    "paint": {
        "palette": (OBJECT, {}, (BLUE, PALE, RED)),
        "ink": (OBJECT, {}, RED),
        "paper": (OBJECT, {}, PALE),
        "scheme": (OBJECT, {}, "duo"),
        "covers": (OBJECT, {"scheme": "line"}, False),
        "outline": (OBJECT, {}, "darker"),
        "opacity": (OBJECT, {}, 0.5),
        "fill": (OBJECT, {}, "radial"),
        "strength": (OBJECT, GRADIENT, 1.0),
        "angle": (OBJECT, GRADIENT, 90.0),
        "period": (OBJECT, HATCH, 12.0),
        "shift": (OBJECT, {}, 5.0),
    },
    "light": {
        "crescent": (OBJECT, {}, 6.0),
        "bevel": (OBJECT, {}, 8.0),
        "bevel_strength": (OBJECT, {"bevel": 8.0}, 1.0),
        "gloss": (OBJECT, {}, 0.6),
        "rim": (OBJECT, {}, 3.0),
        "sticker": (OBJECT, {}, 4.0),
        "shadow": (OBJECT, {}, "soft"),
        "shadow_length": (OBJECT, {"shadow": "hard"}, 12.0),
        "shadow_blur": (OBJECT, {"shadow": "soft"}, 8.0),
        "shadow_strength": (OBJECT, {"shadow": "block"}, 1.0),
        "glow": (OBJECT, {}, 6.0),
    },
    "finish": {
        "plate": (OBJECT, {}, "disc"),
        "plate_slot": (OBJECT, {"plate": "square", "plate_slot": 0}, 1),
        "size": (OBJECT, {}, 90.0),
        "texture": (OBJECT, {}, 10.0),
        "noise": (OBJECT, {}, 10.0),
        "blur": (OBJECT, {}, 1.5),
        "sharpen": (OBJECT, {}, 1.5),
        "levels": (OBJECT, {}, 3),
        "jpeg": (OBJECT, {}, 20),
    },
}


def _with(style: InventedStyle, part: str, **values: object) -> InventedStyle:
    return replace(style, **{part: replace(getattr(style, part), **values)})


@pytest.mark.parametrize("part", EFFECTS)
def test_every_parameter_changes_the_picture(part):
    assert [field.name for field in fields(getattr(PLAIN, part)) if field.name not in EFFECTS[part]] == []
    ground = _with(PLAIN, "paint", paper=(170, 160, 150)) if part == "light" else PLAIN  # a glow is not seen on white
    for name, (content, needs, value) in EFFECTS[part].items():
        before = _with(ground, part, **needs)
        after = _with(before, part, **{name: value})
        pictures = [np.stack([draw(s, content + 4 * i, 64) for i in range(4)]).astype(int) for s in (before, after)]
        assert (np.abs(pictures[0] - pictures[1]).max(-1) > 10).sum() > 30, name  # of 4 * 64 * 64 pixels


@pytest.mark.parametrize("field", ["scheme", "outline", "fill", "shadow", "plate", "cap", "join"])
def test_every_choice_looks_different(field):
    part = next(name for name in EFFECTS if field in {f.name for f in fields(getattr(PLAIN, name))})
    options = {f.name: f.type for f in fields(getattr(PLAIN, part))}[field].__args__
    style = _with(PLAIN, "pen", stroke=7.0, weight=16.0, cap="butt") if part == "pen" else PLAIN
    style = replace(style, finish=replace(style.finish, plate_slot=0), form=Form(radius=0.0))
    contents = (GLYPH + 8, OBJECT, ICON + 4)
    pictures = [np.stack([draw(_with(style, part, **{field: o}), c, 64) for c in contents]) for o in options]
    for number, picture in enumerate(pictures):
        for other in pictures[:number]:
            assert np.abs(picture.astype(int) - other).mean() > 0.05, (options, number)


def _measures(picture: np.ndarray) -> np.ndarray:
    """A colour histogram of 64 cells, and how often neighbours differ at four distances."""
    levels = (picture // 64).astype(int) @ [16, 4, 1]
    grey = picture.mean(2)
    steps = [np.abs(grey[step:] - grey[:-step]).mean() / 40 for step in (1, 2, 4, 8)]
    return np.concatenate([np.sqrt(np.bincount(levels.ravel(), minlength=64) / levels.size), steps])


def test_styles_differ_more_than_their_contents():
    bank = draw_bank(40, 6, 48, seed=5)
    values = np.array([[_measures(picture) for picture in row] for row in bank])
    distances = np.linalg.norm(values[:, :, None, None] - values[None, None], axis=-1)  # (40, 6, 40, 6)
    within = np.mean([distances[i, :, i].sum() / 30 for i in range(40)])
    between = np.mean([distances[i, :, j].mean() for i in range(40) for j in range(i)])
    print(f"within {within:.3f}, between {between:.3f}")
    assert between > 1.5 * within


def test_no_picture_is_blank():
    for number in range(200):
        picture = draw(invented_style(40 + number // 5), number, 48).astype(int)
        corner = np.median(np.concatenate([picture[0], picture[-1]]), axis=0)
        assert (np.abs(picture - corner).max(2) > 20).mean() > 0.01, number


def test_a_makers_styles_look_different():
    for first in range(0, 40, 4):
        styles = [invented_style(first + number) for number in range(4)]
        assert len(set(styles)) == 4


def test_the_sheet_is_written(tmp_path):
    main([str(tmp_path / "sheet.png"), "--rows", "3", "--columns", "2", "--size", "32"])
    assert Image.open(tmp_path / "sheet.png").size == (64, 96)
