"""Words for an invented style: what a person would call its lines, forms, colours, fills, light and ground.

InventedStyle -> "thin outlines, rounded corners, pastel colours, hatched, on dark paper"

With them drawings have texts, as pictures of the world have captions: a style encoder that is trained on these can be
given a style by name that it was never shown.
"""

import colorsys
from collections.abc import Iterator

import numpy as np

from common.samples.invented_style import InventedStyle

FILLS = {
    "gradient": "gradients",
    "radial": "gradients",
    "hatch": "hatched",
    "cross": "cross-hatched",
    "dots": "halftone dots",
    "grain": "grainy",
    "wash": "watercolour wash",
    "bars": "striped",
}
SHADOWS = {"soft": "soft shadow", "hard": "hard shadow", "long": "long shadow", "block": "block shadow"}
PLATES = {"disc": "on a disc", "square": "on a square", "rounded": "on a rounded square", "hexagon": "on a hexagon"}


def describe(style: InventedStyle) -> str:
    """The words that hold for a style, the most telling first."""
    words = [*_lines(style), *_form(style), *_colours(style), *_light(style), *_ground(style)]
    return ", ".join(dict.fromkeys(words))


def _lines(style: InventedStyle) -> Iterator[str]:
    pen, paint = style.pen, style.paint
    if style.form.grid:
        yield "pixel art"
    if paint.scheme in ("line", "accent"):
        yield _width(pen.stroke) + " line art"
    elif pen.stroke and paint.outline != "paper":
        yield _width(pen.stroke) + " outlines"
    else:
        yield "silhouettes" if paint.scheme == "solid" else "flat shapes without outlines"
    marks = {
        "dashed": pen.dash,
        "brush strokes": pen.contrast > 0.3 or pen.taper > 0.3,
        "rough": pen.rough > 0.5,
        "sketched twice": pen.echo,
        "hollow": pen.hollow,
        "hand-drawn": style.form.wobble > 1.2,
    }
    yield from (word for word, holds in marks.items() if holds)


def _form(style: InventedStyle) -> Iterator[str]:
    form = style.form
    if not form.grid:
        yield "cut corners" if form.cut else "round corners" if form.radius >= 4 else "sharp corners"
    marks = {
        "faceted": form.facet,
        "slanted": abs(form.slant) > 0.1,
        "narrow": form.stretch < 0.8,
        "wide": form.stretch > 1.2,
        "serifs": form.serif,
        "stencil": form.stencil,
    }
    yield from (word for word, holds in marks.items() if holds)


def _colours(style: InventedStyle) -> Iterator[str]:
    paint = style.paint
    if paint.scheme in ("line", "solid"):
        yield "black and white" if max(paint.ink) < 40 else "one colour"
    else:
        hsv = np.array([colorsys.rgb_to_hsv(*(value / 255 for value in colour)) for colour in paint.palette])
        saturation, value = hsv[:, 1].mean(), hsv[:, 2].mean()
        tone = "pastel" if saturation < 0.45 and value > 0.8 else "vivid" if saturation > 0.65 else "muted"
        yield "greys" if saturation < 0.12 else f"{tone} colours"
        yield (
            "two tones" if paint.scheme == "duo" else "an accent colour" if paint.scheme == "accent" else "many colours"
        )
    if paint.fill != "flat" and paint.scheme != "line":
        yield FILLS[paint.fill]
    if abs(paint.shift) > 2:
        yield "misregistered print"


def _light(style: InventedStyle) -> Iterator[str]:
    light = style.light
    marks = {"embossed": light.bevel, "glossy": light.gloss, "glowing": light.glow, "sticker": light.sticker}
    yield from (word for word, holds in marks.items() if holds)
    if light.shadow != "none":
        yield SHADOWS[light.shadow]


def _ground(style: InventedStyle) -> Iterator[str]:
    finish, paper = style.finish, style.paint.paper
    if finish.plate != "none":
        yield PLATES[finish.plate]
    if sum(paper) < 384:
        yield "on dark paper"
    elif paper != (255, 255, 255):
        yield "on tinted paper"
    if finish.texture > 2:
        yield "paper texture"
    if finish.noise > 3:
        yield "noisy"


def _width(pixels: float) -> str:
    return "thin" if pixels < 4 else "bold" if pixels > 8 else "medium"
