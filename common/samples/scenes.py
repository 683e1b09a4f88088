"""Scenes of the sample data: the ground truth behind every picture, without pixels.

random generator -> Scene (objects with kind, colour, size, box; captions) -> parts() -> filled polygons

All coordinates are fractions of the picture's side in [0, 1], x to the right, y down. Parts are listed from back to
front; common/samples/styles.py turns them into pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.samples.shapes import COLOURS, KINDS, Part, background_parts, pick, shade

CHINESE = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "turquoise": "青色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "left": "左边",
    "right": "右边",
    "top": "上方",
    "bottom": "下方",
    "centre": "中间",
    "left of": "左边",
    "right of": "右边",
    "above": "上方",
    "below": "下方",
}
SIZES = {"small": 0.23, "medium": 0.33, "large": 0.45}  # longer side of the box
NUMBERS = {1: ("a", "一"), 2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四")}
POSITIONS = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "centre": "in the centre",
}
LEFT, RIGHT = (0.02, 0.02, 0.5, 0.98), (0.5, 0.02, 0.98, 0.98)
TOP, BOTTOM = (0.02, 0.02, 0.98, 0.5), (0.02, 0.5, 0.98, 0.98)
HALVES = {"left of": (LEFT, RIGHT), "right of": (RIGHT, LEFT), "above": (TOP, BOTTOM), "below": (BOTTOM, TOP)}
QUARTERS = [(x, y, x + 0.48, y + 0.48) for x in (0.02, 0.5) for y in (0.02, 0.5)]
RELATIONS = tuple(HALVES)
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
BACKGROUNDS = {
    "paper": ("on plain paper", "纸上"),
    "sky": ("under a pale sky", "天空下"),
    "meadow": ("on a meadow", "草地上"),
    "beach": ("on a beach", "沙滩上"),
    "hills": ("in front of hills", "山丘前"),
    "stripes": ("in front of a striped wall", "条纹墙前"),
    "dots": ("in front of a dotted wall", "圆点墙前"),
}


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
    tint: str  # the background is a pale shade of this colour, if it has no fixed one
    position: str | None = None  # of a single object
    relation: str | None = None

    @property
    def caption(self) -> str:
        position = f" {POSITIONS[self.position]}" if self.position else ""
        relation = f" {self.relation} {self.phrase(1)}" if self.relation else ""
        return f"{self.phrase(0)}{position}{relation}, {BACKGROUNDS[self.background][0]}"

    @property
    def caption_chinese(self) -> str:
        place = BACKGROUNDS[self.background][1]
        if self.relation:
            return f"{place}，{self.phrase_chinese(0)}在{self.phrase_chinese(1)}的{CHINESE[self.relation]}。"
        return f"{place}，{CHINESE[self.position] if self.position else ''}有{self.phrase_chinese(0)}。"

    def phrase(self, group: int) -> str:
        """'two small yellow stars'"""
        first, number = self.first(group), NUMBERS[len(self.groups[group])][0]
        return f"{number} {first.size.replace('medium', 'medium-sized')} {first.colour} {self.noun(group)}"

    def phrase_chinese(self, group: int) -> str:
        first, number = self.first(group), NUMBERS[len(self.groups[group])][1]
        kind, colour = KINDS[first.kind], CHINESE[first.colour]
        sizes = {"small": f"{colour}的小", "medium": f"中等大小的{colour}", "large": f"{colour}的大"}
        return f"{number}{kind.measure}{sizes[first.size]}{kind.chinese}"

    def noun(self, group: int) -> str:
        """'star', or 'stars' of a group of several"""
        kind = self.first(group).kind
        return kind if len(self.groups[group]) == 1 else plural(kind)

    def first(self, group: int) -> SceneObject:
        return self.objects[self.groups[group][0]]

    def parts(self) -> Iterator[Part]:
        yield from background_parts(self.background, self.tint)
        for index, item in enumerate(self.objects):
            corner, extent = np.array(item.box[:2]), np.array(item.box[2:]) - np.array(item.box[:2])
            for tone, points in KINDS[item.kind].shapes:
                points = np.clip(points, 0, 1) * ([-1, 1] if item.mirrored else 1) + [int(item.mirrored), 0]
                yield Part(corner + extent * points, shade(item.colour, tone), index)


def plural(kind: str) -> str:
    return {"fish": "fish", "butterfly": "butterflies"}.get(kind, kind + "s")


def questions(scene: Scene, random: np.random.Generator) -> list[tuple[str, str]]:
    """Questions about a scene with short answers: kind, count, colour, position."""
    kinds = [scene.first(group).kind for group in range(len(scene.groups))]
    pairs = [("Which kinds of objects are in this picture?", " and ".join(kinds))]
    for group, members in enumerate(scene.groups):
        verb = "is" if len(members) == 1 else "are"
        pairs += [
            (f"How many {plural(kinds[group])} are there?", str(len(members))),
            (f"What colour {verb} the {scene.noun(group)}?", scene.first(group).colour),
        ]
    if scene.position:
        pairs.append((f"Where is the {kinds[0]}?", scene.position))
    if scene.relation:
        first, second, verb = scene.noun(0), scene.noun(1), "Is" if len(scene.groups[0]) == 1 else "Are"
        opposite = pick(random, RELATIONS) == OPPOSITES[scene.relation]
        claimed = OPPOSITES[scene.relation] if opposite else scene.relation
        pairs += [
            (f"What is {scene.relation} the {second}?", kinds[0]),
            (f"{verb} the {first} {claimed} the {second}?", "no" if opposite else "yes"),
        ]
    return pairs


def questions_chinese(scene: Scene) -> list[tuple[str, str]]:
    pairs = []
    for group, members in enumerate(scene.groups):
        kind = KINDS[scene.first(group).kind]
        pairs += [
            (f"图中有几{kind.measure}{kind.chinese}？", f"{NUMBERS[len(members)][1]}{kind.measure}。"),
            (f"{kind.chinese}是什么颜色的？", f"{CHINESE[scene.first(group).colour]}。"),
        ]
    if scene.position:
        pairs.append((f"{kind.chinese}在图片的什么位置？", f"{CHINESE[scene.position]}。"))
    return pairs


def single_scene(random: np.random.Generator, kind: str) -> Scene:
    """One object of this kind, of any colour, size and position."""
    size, position = pick(random, SIZES), pick(random, POSITIONS)
    extent = _extent(random, kind, size)
    towards = {"left": (0, 0.5), "right": (1, 0.5), "top": (0.5, 0), "bottom": (0.5, 1), "centre": (0.5, 0.5)}[position]
    corner = 0.04 + (1 - 0.08 - extent) * towards + random.uniform(-0.02, 0.02, 2)
    item = _object(random, kind, pick(random, COLOURS), size, corner, extent)
    return Scene((item,), ((0,),), pick(random, BACKGROUNDS), pick(random, COLOURS), position=position)


def random_scene(random: np.random.Generator) -> Scene:
    """One object, two to four equal objects, or one or two objects next to one or two of another kind."""
    form = random.choice(3, p=[0.3, 0.2, 0.5])
    first, second = (str(kind) for kind in random.choice(list(KINDS), 2, replace=False))
    if form == 0:
        return single_scene(random, first)
    background, tint = pick(random, BACKGROUNDS), pick(random, COLOURS)
    if form == 1:
        slots = [QUARTERS[index] for index in random.permutation(4)[: random.integers(2, 5)]]
        objects = _group(random, first, slots)
        return Scene(objects, (tuple(range(len(objects))),), background, tint)
    relation = pick(random, RELATIONS)
    first_objects, second_objects = (
        _group(random, kind, _split(half, random)) for kind, half in zip((first, second), HALVES[relation])
    )
    numbers = tuple(range(len(first_objects) + len(second_objects)))
    groups = (numbers[: len(first_objects)], numbers[len(first_objects) :])
    return Scene(first_objects + second_objects, groups, background, tint, relation=relation)


def _split(half: tuple, random: np.random.Generator) -> list[tuple]:
    """Half a picture -> itself, or its two quarters."""
    x0, y0, x1, y1 = half
    if random.random() < 0.6:
        return [half]
    return [(x0, y0, x1, 0.5), (x0, 0.5, x1, y1)] if y1 - y0 > x1 - x0 else [(x0, y0, 0.5, y1), (0.5, y0, x1, y1)]


def _group(random: np.random.Generator, kind: str, slots: list[tuple]) -> tuple[SceneObject, ...]:
    colour, size = pick(random, COLOURS), pick(random, SIZES)
    objects = []
    for slot in slots:
        extent = _extent(random, kind, size)
        corner = slot[:2] + (np.subtract(slot[2:], slot[:2]) - extent) * random.random(2)
        objects.append(_object(random, kind, colour, size, corner, extent))
    return tuple(objects)


def _object(
    random: np.random.Generator, kind: str, colour: str, size: str, corner: np.ndarray, extent: np.ndarray
) -> SceneObject:
    left, top, right, bottom = (round(float(value), 4) for value in (*corner, *(corner + extent)))
    return SceneObject(kind, colour, size, (left, top, right, bottom), bool(random.integers(2)))


def _extent(random: np.random.Generator, kind: str, size: str) -> np.ndarray:
    aspect = KINDS[kind].aspect
    return SIZES[size] * random.uniform(0.94, 1.05) * np.array([min(1, aspect), min(1, 1 / aspect)])
