"""Parameters of an invented style: pen, form, paint, light and finish.

All lengths are pixels of a picture of 128 pixels a side; angles are degrees. A style is hashable, so it can be a key.
"""

from dataclasses import dataclass
from typing import Literal

from common.samples.invented_palettes import Colour


@dataclass(frozen=True)
class Pen:
    """Lines: outlines of regions (`stroke`, 0 for none) and free lines (`weight`)."""

    stroke: float = 4.0
    weight: float = 4.0
    contrast: float = 0.0  # share of the width lost along the pen's angle, in [0, 1)
    angle: float = 30.0  # of the broad pen
    taper: float = 0.0  # share of the width lost at both ends of a line, in [0, 1)
    rough: float = 0.0  # pixels of noise in the contour
    soften: float = 0.0  # radius of an ink that runs into corners
    cap: Literal["round", "butt", "square"] = "round"
    join: Literal["round", "miter", "bevel"] = "round"
    dash: float = 0.0  # share of a line that is missing
    dash_period: float = 24.0
    echo: int = 0  # further times that a line is drawn
    hollow: float = 0.0  # thickness of the rim of free lines that are empty inside; 0 for full ones
    inline: bool = False  # a line in the middle of a hollow one


@dataclass(frozen=True)
class Form:
    """Geometry: what happens to the polylines of a content."""

    radius: float = 4.0  # of corners
    cut: bool = False  # cut corners instead of round ones
    facet: float = 0.0  # curves as polygons: degrees that one corner turns
    wobble: float = 0.0  # amplitude of an unsteady hand
    waves: float = 3.0  # wobbles a picture
    slant: float = 0.0  # tangent
    stretch: float = 1.0  # width over height of a content that had 1
    tilt: float = 0.0
    flare: float = 0.0  # sides that bend inwards, or outwards where it is negative
    detail: float = 1.0  # share of the details that are kept
    serif: float = 0.0  # half length of a bar at the ends of glyphs
    serif_weight: float = 0.4  # thickness of that bar over the weight
    stencil: float = 0.0  # width of bridges through thick glyphs and bodies
    grid: int = 0  # cells a side of a pixel grid; 0 for none


@dataclass(frozen=True)
class Paint:
    """Colours: which piece takes which one, and how an area is filled."""

    palette: tuple[Colour, ...] = ((0, 0, 0),)
    ink: Colour = (0, 0, 0)
    paper: Colour = (255, 255, 255)
    scheme: Literal["line", "solid", "duo", "accent", "colours"] = "line"
    covers: bool = True  # empty regions hide what lies behind them
    outline: Literal["ink", "darker", "paper"] = "ink"
    opacity: float = 1.0  # of filled areas
    fill: Literal["flat", "gradient", "radial", "hatch", "cross", "dots", "grain", "wash", "bars"] = "flat"
    strength: float = 0.5  # of a fill that is not flat: how far its second colour is from the first
    angle: float = 45.0  # of gradients, hatches and screens
    period: float = 6.0  # of hatches and screens
    shift: float = 0.0  # areas are printed beside their outlines


@dataclass(frozen=True)
class Light:
    """Shading of areas, and shadows of the whole."""

    crescent: float = 0.0  # width of a darker rim on the lower right
    bevel: float = 0.0  # depth of a rounded edge
    bevel_strength: float = 0.5
    gloss: float = 0.0  # strength of a highlight on the upper half
    rim: float = 0.0  # width of a lighter line inside the outline
    sticker: float = 0.0  # width of a pale border around the whole
    shadow: Literal["none", "soft", "hard", "long", "block"] = "none"
    shadow_length: float = 4.0
    shadow_blur: float = 3.0
    shadow_strength: float = 0.4
    glow: float = 0.0  # radius


@dataclass(frozen=True)
class Finish:
    """Ground and reproduction."""

    plate: Literal["none", "disc", "square", "rounded", "hexagon"] = "none"
    plate_slot: int = -1  # palette colour of the plate; -1 for one that changes with the content
    size: float = 116.0  # longest side of the painted part
    texture: float = 0.0  # of the paper, levels
    noise: float = 0.0  # of the picture, levels
    blur: float = 0.0
    sharpen: float = 0.0
    levels: int = 0  # tones a channel; 0 for all
    jpeg: int = 0  # quality; 0 for none


@dataclass(frozen=True)
class InventedStyle:
    """A drawn style; `subjects` are the contents that its maker draws, each as often as it is named."""

    subjects: tuple[str, ...]
    pen: Pen
    form: Form
    paint: Paint
    light: Light
    finish: Finish
