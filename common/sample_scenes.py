"""What is drawn in the sample data: the truth behind every picture, and no pixel of it.

random generator -> Scene (objects with kind, colour, size, box; captions) or Portrait -> parts() -> filled polygons

All coordinates are fractions of the picture's side in [0, 1], x to the right, y down. A part is one polygon of one
colour; parts are listed from back to front. `sample_styles` turns parts into pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COLOURS = {
    "red": (214, 48, 49), "orange": (240, 130, 40), "yellow": (245, 200, 45), "green": (62, 160, 75),
    "turquoise": (38, 178, 172), "blue": (52, 104, 210), "purple": (135, 75, 175), "pink": (238, 120, 165),
    "brown": (135, 88, 55),
}  # fmt: skip
CHINESE = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "turquoise": "青色", "blue": "蓝色",
    "purple": "紫色", "pink": "粉色", "brown": "棕色", "left": "左边", "right": "右边", "top": "上方", "bottom": "下方",
    "centre": "中间", "left of": "左边", "right of": "右边", "above": "上方", "below": "下方",
}  # fmt: skip
FIXED = {"ink": (45, 40, 48), "white": (250, 248, 242), "cream": (236, 220, 190), "wood": (120, 82, 54),
         "leaf": (84, 140, 66), "gold": (246, 196, 66), "grey": (150, 152, 160)}  # fmt: skip
SIZES = {"small": 0.23, "medium": 0.33, "large": 0.45}  # longer side of the box
NUMBERS = {1: ("a", "一"), 2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四")}
POSITIONS = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom",
             "centre": "in the centre"}  # fmt: skip
LEFT, RIGHT = (0.02, 0.02, 0.5, 0.98), (0.5, 0.02, 0.98, 0.98)
TOP, BOTTOM = (0.02, 0.02, 0.98, 0.5), (0.02, 0.5, 0.98, 0.98)
HALVES = {"left of": (LEFT, RIGHT), "right of": (RIGHT, LEFT), "above": (TOP, BOTTOM), "below": (BOTTOM, TOP)}
RELATIONS = tuple(HALVES)
BACKGROUNDS = {
    "paper": ("on plain paper", "纸上"), "sky": ("under a pale sky", "天空下"), "meadow": ("on a meadow", "草地上"),
    "beach": ("on a beach", "沙滩上"), "hills": ("in front of hills", "山丘前"),
    "stripes": ("in front of a striped wall", "条纹墙前"), "dots": ("in front of a dotted wall", "圆点墙前"),
}  # fmt: skip


class Part(NamedTuple):
    points: np.ndarray  # (n, 2)
    colour: tuple[int, int, int]
    owner: int  # index of the object, -1 for the background


class Kind(NamedTuple):
    chinese: str
    measure: str  # the Chinese measure word
    aspect: float  # width / height
    shapes: list[tuple[str, np.ndarray]]  # tone, points in the unit square, touching all its four sides


def oval(tone: str, left: float, top: float, right: float, bottom: float, start: int = 0, stop: int = 360):
    """An ellipse in its box, or the piece of it between two angles in degrees (0 right, 90 down)."""
    angle = np.radians(np.linspace(start, stop, 49))
    centre, radius = np.array([left + right, top + bottom]) / 2, np.array([right - left, bottom - top]) / 2
    return tone, centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def polygon(tone: str, *coordinates: float):
    return tone, np.array(coordinates, dtype=float).reshape(-1, 2)


def box(tone: str, left: float, top: float, right: float, bottom: float):
    return polygon(tone, left, top, right, top, right, bottom, left, bottom)


def band(tone: str, start: int, stop: int, outer: tuple, inner: tuple):
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
    inner = oval("", 0.3, 0.12, 1.02, 0.88, 300, 60)[1]
    return _fill_unit(np.concatenate([oval("", 0, 0, 1, 1, 50, 310)[1], inner]))


def _petals(tone: str, right: float, bottom: float, count: int) -> list:
    """Round petals in a ring that fills the box from (0, 0)."""
    angles = np.radians(np.arange(count) * 360 / count - 90)
    petals = [oval("", u - 0.42, v - 0.42, u + 0.42, v + 0.42)[1] for u, v in zip(np.cos(angles), np.sin(angles))]
    ring = _fill_unit(np.concatenate(petals)) * [right, bottom]
    return [(tone, points) for points in np.split(ring, count)]


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


@dataclass(frozen=True)
class SceneObject:
    kind: str
    colour: str
    size: str
    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """One or two groups of equal objects; `relation` holds between the first and the second group."""

    objects: tuple[SceneObject, ...]
    groups: tuple[tuple[int, ...], ...]  # indices into objects
    background: str
    tint: str  # the colour that the background is a pale shade of, where it has a choice
    position: str | None = None  # of a single object
    relation: str | None = None

    @property
    def caption(self) -> str:
        text = self.phrase(0)
        if self.relation:
            text += f" {self.relation} {self.phrase(1)}"
        elif self.position:
            text += f" {POSITIONS[self.position]}"
        return f"{text}, {BACKGROUNDS[self.background][0]}"

    @property
    def caption_chinese(self) -> str:
        place = BACKGROUNDS[self.background][1]
        if self.relation:
            return f"{place}，{self.phrase_chinese(0)}在{self.phrase_chinese(1)}的{CHINESE[self.relation]}。"
        return f"{place}，{CHINESE[self.position] if self.position else ''}有{self.phrase_chinese(0)}。"

    def phrase(self, group: int) -> str:
        """'two small yellow stars'"""
        first, count = self.first(group), len(self.groups[group])
        size = "medium-sized" if first.size == "medium" else first.size
        return f"{NUMBERS[count][0]} {size} {first.colour} {self.noun(group)}"

    def phrase_chinese(self, group: int) -> str:
        first, count = self.first(group), NUMBERS[len(self.groups[group])][1]
        kind, colour = KINDS[first.kind], CHINESE[first.colour]
        if first.size == "medium":
            return f"{count}{kind.measure}中等大小的{colour}{kind.chinese}"
        return f"{count}{kind.measure}{colour}的{'大' if first.size == 'large' else '小'}{kind.chinese}"

    def noun(self, group: int) -> str:
        """'star', or 'stars' of a group of several"""
        kind = self.first(group).kind
        return kind if len(self.groups[group]) == 1 else plural(kind)

    def first(self, group: int) -> SceneObject:
        return self.objects[self.groups[group][0]]

    def parts(self) -> Iterator[Part]:
        yield from background_parts(self.background, self.tint)
        for index, thing in enumerate(self.objects):
            corner, extent = np.array(thing.box[:2]), np.array(thing.box[2:]) - np.array(thing.box[:2])
            for tone, points in KINDS[thing.kind].shapes:
                points = np.clip(points, 0, 1)
                if thing.mirrored:
                    points = points * [-1, 1] + [1, 0]
                yield Part(corner + extent * points, shade(thing.colour, tone), index)


def plural(kind: str) -> str:
    return {"fish": "fish", "butterfly": "butterflies"}.get(kind, kind + "s")


def shade(colour: str, tone: str) -> tuple[int, int, int]:
    """`main`, `dark`, `light` and `pale` follow the named colour; the other tones have their own."""
    if tone in FIXED:
        return FIXED[tone]
    towards, share = {"main": (0, 0), "dark": (20, 0.32), "light": (255, 0.5), "pale": (255, 0.78)}[tone]
    return tuple(round(value + (towards - value) * share) for value in COLOURS[colour])


def background_parts(background: str, tint: str) -> Iterator[Part]:
    sky, cloud, sea, sand, grass = (222, 238, 250), (246, 251, 255), (190, 224, 236), (248, 234, 204), (212, 234, 196)
    pale = shade(tint, "pale")
    paler = tuple((value + 255) // 2 for value in pale)
    shapes = {
        "paper": [],
        "sky": [oval(cloud, -0.1, 0.08, 0.5, 0.3), oval(cloud, 0.55, 0.4, 1.2, 0.66), oval(cloud, 0.05, 0.7, 0.6, 0.9)],
        "meadow": [oval(cloud, 0.5, 0.06, 0.95, 0.22), oval(grass, -0.5, 0.58, 1.5, 1.8)],
        "beach": [box(sea, 0, 0.45, 1, 0.75), oval(sand, -0.6, 0.66, 1.4, 2)],
        "hills": [oval(paler, -0.3, 0.35, 0.7, 1.6), oval(pale, 0.3, 0.5, 1.5, 1.8), oval(grass, -0.6, 0.72, 0.9, 2)],
        "stripes": [box(pale, left, 0, left + 0.1, 1) for left in np.arange(0.05, 1, 0.2)],
        "dots": [oval(pale, x - 0.04, y - 0.04, x + 0.04, y + 0.04) for row, y in enumerate(np.arange(0.05, 1.1, 0.15))
                 for x in np.arange(0.05, 1.1, 0.2) + row % 2 * 0.1],
    }[background]  # fmt: skip
    ground = sky if background in ("sky", "meadow", "beach", "hills") else paler
    for colour, points in [box(ground, 0, 0, 1, 1), *shapes]:
        yield Part(points, colour, -1)


def single_scene(random: np.random.Generator, kind: str) -> Scene:
    """One object of this kind, of any colour, size and position."""
    size, position = _pick(random, SIZES), _pick(random, POSITIONS)
    extent = _extent(random, kind, size)
    towards = {"left": (0, 0.5), "right": (1, 0.5), "top": (0.5, 0), "bottom": (0.5, 1), "centre": (0.5, 0.5)}[position]
    free = 1 - 0.08 - extent
    corner = 0.04 + free * towards + random.uniform(-0.02, 0.02, 2)
    placed = (_object(random, kind, _pick(random, COLOURS), size, corner, extent),)
    return Scene(placed, ((0,),), _pick(random, BACKGROUNDS), _pick(random, COLOURS), position=position)


def random_scene(random: np.random.Generator) -> Scene:
    """One object, two to four equal objects, or one or two objects beside one or two of another kind."""
    form = random.choice(3, p=[0.3, 0.2, 0.5])
    first, second = (str(kind) for kind in random.choice(list(KINDS), 2, replace=False))
    if form == 0:
        return single_scene(random, first)
    background, tint = _pick(random, BACKGROUNDS), _pick(random, COLOURS)
    if form == 1:
        corners = [(x, y, x + 0.48, y + 0.48) for x in (0.02, 0.5) for y in (0.02, 0.5)]
        slots = [corners[index] for index in random.permutation(4)[: random.integers(2, 5)]]
        objects = _group(random, first, slots)
        return Scene(objects, (tuple(range(len(objects))),), background, tint)
    relation = _pick(random, RELATIONS)
    here, there = (_group(random, kind, _split(half, random)) for kind, half in zip((first, second), HALVES[relation]))
    count = len(here)
    groups = (tuple(range(count)), tuple(range(count, count + len(there))))
    return Scene(here + there, groups, background, tint, relation=relation)


def _split(half: tuple, random: np.random.Generator) -> list[tuple]:
    """Half a picture -> itself, or its two quarters."""
    x0, y0, x1, y1 = half
    if random.random() < 0.6:
        return [half]
    return [(x0, y0, x1, 0.5), (x0, 0.5, x1, y1)] if y1 - y0 > x1 - x0 else [(x0, y0, 0.5, y1), (0.5, y0, x1, y1)]


def _group(random: np.random.Generator, kind: str, slots: list[tuple]) -> tuple[SceneObject, ...]:
    colour, size = _pick(random, COLOURS), _pick(random, SIZES)
    objects = []
    for slot in slots:
        extent = _extent(random, kind, size)
        corner = slot[:2] + (np.subtract(slot[2:], slot[:2]) - extent) * random.random(2)
        objects.append(_object(random, kind, colour, size, corner, extent))
    return tuple(objects)


def _object(random, kind: str, colour: str, size: str, corner: np.ndarray, extent: np.ndarray) -> SceneObject:
    place = tuple(round(float(value), 4) for value in (*corner, *(corner + extent)))
    return SceneObject(kind, colour, size, place, bool(random.integers(2)))


def _extent(random: np.random.Generator, kind: str, size: str) -> np.ndarray:
    aspect = KINDS[kind].aspect
    return SIZES[size] * random.uniform(0.94, 1.05) * np.array([min(1, aspect), min(1, 1 / aspect)])


def _pick(random: np.random.Generator, options) -> str:
    return list(options)[random.integers(len(options))]


HAIR = {"black": (48, 44, 56), "brown": (122, 78, 48), "blonde": (238, 204, 112), "red": (196, 84, 48),
        "silver": (204, 208, 218), "blue": (84, 128, 214), "pink": (240, 144, 180),
        "green": (92, 168, 112)}  # fmt: skip
EYES = {"brown": (120, 76, 44), "blue": (56, 116, 216), "green": (60, 150, 84), "purple": (140, 80, 180)}
SKIN = ((250, 222, 196), (232, 190, 150), (190, 136, 98), (138, 94, 68))
LENGTHS = ("short", "shoulder-length", "long")
ACCESSORIES = ("glasses", "hat", "scarf", "earrings", "hair bow", "headphones")
EXPRESSIONS = {  # what the face shows, and the character told from it
    "smiling": ("a broad smile", "Cheerful and open, makes friends wherever the road leads."),
    "serious": ("a serious look", "Calm and reserved, thinks twice before speaking once."),
    "sad": ("a sad frown", "Gentle and melancholy, remembers what others would rather forget."),
    "surprised": ("a surprised look", "Curious and easily amazed, asks about everything."),
    "angry": ("an angry scowl", "Proud and quick-tempered, but the first to defend a friend."),
}


@dataclass(frozen=True)
class Portrait:
    """Head and shoulders of a made-up character; what is said of it can be seen."""

    character: str
    hair: str
    length: str
    eyes: str
    outfit: str
    accessory: str
    accessory_colour: str
    expression: str
    skin: int  # index into SKIN

    @property
    def appearance(self) -> str:
        outfit, thing = f"{self.outfit} outfit", f"{self.accessory_colour} {self.accessory}"
        if self.accessory not in ("glasses", "earrings", "headphones"):
            thing = _with_article(thing)
        return (
            f"{self.character} has {self.length} {self.hair} hair and {self.eyes} eyes, wears {_with_article(outfit)} "
            f"and {thing}, and shows {EXPRESSIONS[self.expression][0]}."
        )

    @property
    def personality(self) -> str:
        return EXPRESSIONS[self.expression][1]

    def parts(self) -> Iterator[Part]:
        skin, iris = SKIN[self.skin], EYES[self.eyes]
        shadow = _darker(skin)
        hair, outfit, wide = HAIR[self.hair], COLOURS[self.outfit], 0.012 if self.expression == "surprised" else 0.0
        yield from background_parts("sky", "blue")
        back = {"short": [oval(hair, 0.235, 0.1, 0.765, 0.62)], "shoulder-length": [oval(hair, 0.19, 0.12, 0.81, 0.80)],
                "long": [oval(hair, 0.17, 0.12, 0.83, 0.9), box(hair, 0.17, 0.5, 0.83, 1)]}[self.length]  # fmt: skip
        shapes = [
            *back, oval(outfit, 0.12, 0.76, 0.88, 1.5), box(shadow, 0.43, 0.62, 0.57, 0.80),
            polygon(shadow, 0.40, 0.78, 0.60, 0.78, 0.5, 0.92), oval(shadow, 0.23, 0.42, 0.32, 0.56),
            oval(shadow, 0.68, 0.42, 0.77, 0.56), oval(skin, 0.27, 0.18, 0.73, 0.72),
            (hair, np.concatenate([oval("", 0.24, 0.1, 0.76, 0.72, 180, 360)[1],
                                   [(0.70, 0.37), (0.62, 0.30), (0.5, 0.36), (0.40, 0.30), (0.30, 0.38)]])),
        ]  # fmt: skip
        for x in (0.40, 0.60):
            shapes.append(oval(FIXED["white"], x - 0.06, 0.43 - wide, x + 0.06, 0.53 + wide))
            shapes.append(oval(iris, x - 0.04, 0.435, x + 0.04, 0.525))
            shapes.append(oval(FIXED["ink"], x - 0.017, 0.46, x + 0.017, 0.5))
        for colour, points in [*shapes, *self._face(), *self._accessory()]:
            yield Part(np.clip(points, 0, 1), colour, 0)

    def _face(self) -> list:
        """Brows, nose and mouth."""
        ink, lips = FIXED["ink"], (176, 58, 66)
        brows = {"angry": (0.425, 0.375), "sad": (0.365, 0.41), "surprised": (0.375, 0.365)}
        inner, outer = brows.get(self.expression, (0.40, 0.39))
        shapes = [polygon(_darker(SKIN[self.skin]), 0.5, 0.51, 0.475, 0.575, 0.52, 0.575)]
        for side in (-1, 1):
            near, far = 0.5 + side * 0.05, 0.5 + side * 0.16
            shapes.append(polygon(ink, near, inner, far, outer, far, outer + 0.018, near, inner + 0.022))
        mouth = {
            "smiling": [oval(lips, 0.41, 0.54, 0.59, 0.69, 0, 180), box(FIXED["white"], 0.44, 0.616, 0.56, 0.634)],
            "serious": [box(lips, 0.44, 0.63, 0.56, 0.648)],
            "sad": [band(lips, 190, 350, (0.42, 0.62, 0.58, 0.72), (0.43, 0.642, 0.57, 0.74))],
            "surprised": [oval(lips, 0.465, 0.59, 0.535, 0.68)],
            "angry": [polygon(lips, 0.43, 0.66, 0.5, 0.635, 0.57, 0.66, 0.57, 0.642, 0.5, 0.61, 0.43, 0.642)],
        }[self.expression]
        return shapes + mouth

    def _accessory(self) -> list:
        main, dark = shade(self.accessory_colour, "main"), shade(self.accessory_colour, "dark")
        if self.accessory == "glasses":
            left = band(main, 0, 360, (0.31, 0.39, 0.49, 0.57), (0.33, 0.41, 0.47, 0.55))
            return [left, (main, left[1] + [0.2, 0]), box(main, 0.48, 0.465, 0.52, 0.485)]
        return {
            "hat": [oval(main, 0.27, 0.0, 0.73, 0.46, 180, 360), box(dark, 0.27, 0.18, 0.73, 0.24),
                    oval(main, 0.14, 0.21, 0.86, 0.31)],
            "scarf": [oval(main, 0.31, 0.70, 0.69, 0.86), polygon(dark, 0.56, 0.8, 0.66, 0.8, 0.70, 1, 0.58, 1)],
            "earrings": [oval(main, x - 0.035, 0.56, x + 0.035, 0.66) for x in (0.26, 0.74)],
            "hair bow": [polygon(main, 0.66, 0.18, 0.5, 0.08, 0.52, 0.26, 0.66, 0.18, 0.82, 0.08, 0.8, 0.28),
                         oval(dark, 0.62, 0.14, 0.70, 0.22)],
            "headphones": [band(dark, 180, 360, (0.19, 0.05, 0.81, 0.95), (0.23, 0.1, 0.77, 0.9)),
                           oval(main, 0.16, 0.4, 0.28, 0.6), oval(main, 0.72, 0.4, 0.84, 0.6)],
        }[self.accessory]  # fmt: skip


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(round(value * 0.82) for value in colour)


def _with_article(words: str) -> str:
    return f"{'an' if words.startswith('orange') else 'a'} {words}"


def random_portrait(random: np.random.Generator, character: str) -> Portrait:
    hair = _pick(random, HAIR)
    others = [colour for colour in COLOURS if colour not in ("brown", hair)]  # to be seen against the hair
    outfit, accessory_colour = (str(colour) for colour in random.choice(others, 2, replace=False))
    return Portrait(
        character, hair, _pick(random, LENGTHS), _pick(random, EYES), outfit,
        _pick(random, ACCESSORIES), accessory_colour, _pick(random, EXPRESSIONS), int(random.integers(len(SKIN))),
    )  # fmt: skip
