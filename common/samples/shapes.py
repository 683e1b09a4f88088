"""Shapes of the sample data: the polygons of a house or a fish, and of the backgrounds.

name of a kind -> polygons with tones in the unit square -> Part(points, colour, owner) in the picture

All coordinates are fractions in [0, 1], x to the right, y down; shapes are listed from back to front.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 130, 40),
    "yellow": (245, 200, 45),
    "green": (62, 160, 75),
    "turquoise": (38, 178, 172),
    "blue": (52, 104, 210),
    "purple": (135, 75, 175),
    "pink": (238, 120, 165),
    "brown": (135, 88, 55),
}
FIXED = {
    "ink": (45, 40, 48),
    "white": (250, 248, 242),
    "cream": (236, 220, 190),
    "wood": (120, 82, 54),
    "leaf": (84, 140, 66),
    "gold": (246, 196, 66),
    "grey": (150, 152, 160),
}


Colour = tuple[int, int, int]  # red, green, blue in [0, 255]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Tone = TypeVar("Tone", str, Colour)  # a name that `shade` turns into a colour, or the colour


class Part(NamedTuple):
    points: np.ndarray  # (n, 2)
    colour: Colour
    owner: int  # index of the object, -1 for the background


class Kind(NamedTuple):
    chinese: str
    measure: str  # the Chinese measure word
    aspect: float  # width / height
    shapes: list[tuple[str, np.ndarray]]  # tone, points in the unit square, touching all its four sides


def oval(
    tone: Tone, left: float, top: float, right: float, bottom: float, start: int = 0, stop: int = 360
) -> tuple[Tone, np.ndarray]:
    """An ellipse in its box, or the piece of it between two angles in degrees (0 right, 90 down)."""
    angle = np.radians(np.linspace(start, stop, 49))
    centre, radius = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top]) / 2
    return tone, centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def polygon(tone: Tone, *coordinates: float) -> tuple[Tone, np.ndarray]:
    return tone, np.array(coordinates, dtype=float).reshape(-1, 2)


def box(tone: Tone, left: float, top: float, right: float, bottom: float) -> tuple[Tone, np.ndarray]:
    return polygon(tone, left, top, right, top, right, bottom, left, bottom)


def band(tone: Tone, start: int, stop: int, outer: Box, inner: Box) -> tuple[Tone, np.ndarray]:
    """The region between the same arc of two ellipses, each given by its box."""
    return tone, np.concatenate([oval(tone, *outer, start, stop)[1], oval(tone, *inner, start, stop)[1][::-1]])


def _fill_unit(points: np.ndarray) -> np.ndarray:
    return (points - points.min(0)) / np.ptp(points, axis=0)


def _star() -> np.ndarray:
    angle = np.radians(np.arange(10) * 36 - 90)
    return _fill_unit(np.where(np.arange(10) % 2, 0.46, 1.0)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60)
    across, down = 16 * np.sin(t) ** 3, -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return _fill_unit(np.stack([across, down], 1))


def _crescent() -> np.ndarray:
    arcs = oval("", 0, 0, 1, 1, 50, 310), oval("", 0.3, 0.12, 1.02, 0.88, 300, 60)
    return _fill_unit(np.concatenate([points for _, points in arcs]))


def _petals(tone: str, right: float, bottom: float, count: int) -> list:
    """Round petals in a ring that fills the box from (0, 0)."""
    angles = np.radians(np.arange(count) * 360 / count - 90)
    petals = [oval("", u - 0.42, v - 0.42, u + 0.42, v + 0.42)[1] for u, v in zip(np.cos(angles), np.sin(angles))]
    return [(tone, points) for points in np.split(_fill_unit(np.concatenate(petals)) * [right, bottom], count)]


# fmt: off
KINDS = {
    "house": Kind("房子", "座", 1.0, [
        box("dark", 0.7, 0.06, 0.84, 0.4), polygon("dark", 0, 0.46, 0.5, 0, 1, 0.46), box("main", 0.09, 0.44, 0.91, 1),
        box("wood", 0.41, 0.66, 0.60, 1), box("white", 0.17, 0.56, 0.34, 0.74), box("white", 0.67, 0.56, 0.84, 0.74)]),
    "tree": Kind("树", "棵", 0.8, [
        box("wood", 0.42, 0.6, 0.58, 1), oval("main", 0, 0.24, 0.6, 0.74), oval("main", 0.4, 0.24, 1, 0.74),
        oval("main", 0.14, 0, 0.86, 0.58), oval("light", 0.3, 0.1, 0.52, 0.26), oval("dark", 0.56, 0.42, 0.8, 0.6)]),
    "fish": Kind("鱼", "条", 1.5, [
        polygon("dark", 0.66, 0.5, 1, 0.12, 0.92, 0.5, 1, 0.88), polygon("dark", 0.28, 0.3, 0.5, 0, 0.62, 0.3),
        polygon("dark", 0.34, 0.7, 0.52, 1, 0.58, 0.7), oval("main", 0, 0.14, 0.8, 0.86),
        band("light", -60, 60, (0.1, 0.2, 0.36, 0.8), (0.06, 0.2, 0.29, 0.8)),
        oval("white", 0.1, 0.34, 0.24, 0.54), oval("ink", 0.13, 0.39, 0.20, 0.50)]),
    "star": Kind("星星", "颗", 1.05, [("main", _star()), ("light", 0.5 + (_star() - [0.5, 0.55]) * 0.42)]),
    "boat": Kind("帆船", "艘", 1.0, [
        box("wood", 0.46, 0, 0.51, 0.72), polygon("main", 0.53, 0.03, 0.98, 0.62, 0.53, 0.62),
        polygon("light", 0.44, 0.14, 0.44, 0.62, 0.06, 0.62), polygon("dark", 0, 0.68, 1, 0.68, 0.8, 1, 0.18, 1)]),
    "cat": Kind("猫", "只", 0.85, [
        band("dark", -80, 100, (0.42, 0.4, 1, 1), (0.56, 0.54, 0.86, 0.86)), oval("main", 0.08, 0.42, 0.76, 1.04),
        box("main", 0.16, 0.9, 0.70, 1), polygon("main", 0.02, 0.36, 0.05, 0, 0.34, 0.18),
        polygon("main", 0.44, 0.16, 0.72, 0, 0.76, 0.36), oval("main", 0, 0.1, 0.78, 0.58),
        oval("light", 0.28, 0.64, 0.58, 0.96), oval("white", 0.13, 0.25, 0.31, 0.4),
        oval("white", 0.47, 0.25, 0.65, 0.4), oval("ink", 0.19, 0.26, 0.27, 0.4), oval("ink", 0.52, 0.26, 0.6, 0.4),
        polygon("ink", 0.34, 0.43, 0.45, 0.43, 0.395, 0.49)]),
    "flower": Kind("花", "朵", 0.7, [
        box("leaf", 0.47, 0.4, 0.54, 1), oval("leaf", 0.1, 0.7, 0.48, 0.84), oval("leaf", 0.53, 0.62, 0.9, 0.76),
        *_petals("main", 1, 0.68, 5), oval("gold", 0.33, 0.24, 0.67, 0.48)]),
    "car": Kind("汽车", "辆", 1.7, [
        polygon("main", 0.16, 0.45, 0.3, 0, 0.7, 0, 0.86, 0.45),
        polygon("white", 0.26, 0.42, 0.35, 0.11, 0.48, 0.11, 0.48, 0.42),
        polygon("white", 0.53, 0.42, 0.53, 0.11, 0.66, 0.11, 0.76, 0.42), box("main", 0, 0.42, 1, 0.82),
        box("dark", 0, 0.70, 1, 0.82), oval("gold", 0.01, 0.48, 0.1, 0.64), oval("ink", 0.13, 0.58, 0.37, 1),
        oval("ink", 0.63, 0.58, 0.87, 1), oval("grey", 0.2, 0.71, 0.3, 0.88), oval("grey", 0.7, 0.71, 0.8, 0.88)]),
    "mushroom": Kind("蘑菇", "个", 1.0, [
        oval("cream", 0.3, 0.4, 0.7, 1), oval("dark", 0, 0.44, 1, 0.66), oval("main", 0, 0, 1, 1.1, 180, 360),
        oval("white", 0.2, 0.25, 0.36, 0.43), oval("white", 0.46, 0.08, 0.64, 0.27),
        oval("white", 0.68, 0.32, 0.82, 0.48)]),
    "balloon": Kind("气球", "个", 0.62, [
        polygon("ink", 0.48, 0.7, 0.53, 0.7, 0.60, 0.85, 0.53, 1, 0.47, 1, 0.54, 0.85),
        polygon("dark", 0.38, 0.76, 0.5, 0.66, 0.62, 0.76), oval("main", 0, 0, 1, 0.72),
        oval("light", 0.2, 0.1, 0.42, 0.3)]),
    "moon": Kind("月亮", "个", 0.75, [
        ("main", _crescent()), oval("dark", 0.12, 0.4, 0.26, 0.5), oval("dark", 0.24, 0.68, 0.36, 0.77),
        oval("light", 0.28, 0.14, 0.42, 0.24)]),
    "heart": Kind("爱心", "颗", 1.1, [("main", _heart()), oval("light", 0.14, 0.14, 0.34, 0.36)]),
    "umbrella": Kind("雨伞", "把", 1.0, [
        box("wood", 0.47, 0.4, 0.53, 0.9), band("wood", 0, 180, (0.27, 0.78, 0.53, 1), (0.33, 0.84, 0.47, 0.94)),
        oval("main", 0, 0, 1, 1.1, 180, 360), oval("light", 0.3, 0, 0.7, 1.1, 180, 360),
        oval("dark", 0, 0.48, 0.32, 0.62, 180, 360), oval("dark", 0.32, 0.48, 0.68, 0.62, 180, 360),
        oval("dark", 0.68, 0.48, 1, 0.62, 180, 360)]),
    "cup": Kind("杯子", "个", 1.15, [
        band("dark", -110, 110, (0.5, 0.16, 1, 0.78), (0.62, 0.3, 0.88, 0.64)),
        polygon("main", 0, 0.08, 0.76, 0.08, 0.66, 0.9, 0.1, 0.9), oval("main", 0.1, 0.8, 0.66, 1),
        polygon("light", 0.03, 0.36, 0.73, 0.36, 0.71, 0.52, 0.05, 0.52), oval("dark", 0, 0, 0.76, 0.18)]),
    "bird": Kind("鸟", "只", 1.25, [
        polygon("gold", 0, 0.36, 0.2, 0.22, 0.2, 0.46), polygon("dark", 0.66, 0.5, 1, 0.3, 0.95, 0.66, 0.7, 0.75),
        box("wood", 0.42, 0.8, 0.46, 1), box("wood", 0.54, 0.8, 0.58, 1), oval("main", 0.22, 0.24, 0.84, 0.9),
        oval("main", 0.12, 0, 0.52, 0.56), oval("light", 0.26, 0.5, 0.52, 0.86), oval("dark", 0.44, 0.38, 0.8, 0.68),
        oval("white", 0.2, 0.14, 0.34, 0.34), oval("ink", 0.23, 0.2, 0.3, 0.31)]),
    "butterfly": Kind("蝴蝶", "只", 1.15, [
        oval("main", 0, 0, 0.5, 0.58), oval("main", 0.5, 0, 1, 0.58), oval("dark", 0.1, 0.5, 0.5, 1),
        oval("dark", 0.5, 0.5, 0.9, 1), oval("light", 0.12, 0.14, 0.32, 0.4), oval("light", 0.68, 0.14, 0.88, 0.4),
        oval("light", 0.22, 0.64, 0.36, 0.82), oval("light", 0.64, 0.64, 0.78, 0.82),
        oval("ink", 0.44, 0.14, 0.56, 0.9)]),
}
# fmt: on


def shade(colour: str, tone: str) -> Colour:
    """`main`, `dark`, `light` and `pale` follow the named colour; the other tones have their own."""
    if tone in FIXED:
        return FIXED[tone]
    towards, share = {"main": (0, 0), "dark": (20, 0.32), "light": (255, 0.5), "pale": (255, 0.78)}[tone]
    red, green, blue = (round(value + (towards - value) * share) for value in COLOURS[colour])
    return red, green, blue


def background_parts(background: str, tint: str) -> Iterator[Part]:
    sky, cloud, sea, sand, grass = (222, 238, 250), (246, 251, 255), (190, 224, 236), (248, 234, 204), (212, 234, 196)
    pale = shade(tint, "pale")
    paler = (pale[0] + 255) // 2, (pale[1] + 255) // 2, (pale[2] + 255) // 2
    shapes: dict[str, list[tuple[Colour, np.ndarray]]] = {
        "paper": [],
        "sky": [oval(cloud, -0.1, 0.08, 0.5, 0.3), oval(cloud, 0.55, 0.4, 1.2, 0.66), oval(cloud, 0.05, 0.7, 0.6, 0.9)],
        "meadow": [oval(cloud, 0.5, 0.06, 0.95, 0.22), oval(grass, -0.5, 0.58, 1.5, 1.8)],
        "beach": [box(sea, 0, 0.45, 1, 0.75), oval(sand, -0.6, 0.66, 1.4, 2)],
        "hills": [oval(paler, -0.3, 0.35, 0.7, 1.6), oval(pale, 0.3, 0.5, 1.5, 1.8), oval(grass, -0.6, 0.72, 0.9, 2)],
        "stripes": [box(pale, left, 0, left + 0.1, 1) for left in np.arange(0.05, 1, 0.2)],
        "dots": [
            oval(pale, x - 0.04, y - 0.04, x + 0.04, y + 0.04)
            for row, y in enumerate(np.arange(0.05, 1.1, 0.15))
            for x in np.arange(0.05, 1.1, 0.2) + row % 2 * 0.1
        ],
    }
    ground = sky if background in ("sky", "meadow", "beach", "hills") else paler
    yield from (Part(points, colour, -1) for colour, points in [box(ground, 0, 0, 1, 1), *shapes[background]])


def pick(random: np.random.Generator, options: Collection[str]) -> str:
    return list(options)[random.integers(len(options))]
