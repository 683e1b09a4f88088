"""Portraits of the sample data: head and shoulders of invented characters, with their descriptions.

random generator -> Portrait (hair, eyes, outfit, accessory, expression; sentences) -> parts() -> filled polygons
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.samples.shapes import COLOURS, FIXED, Part, background_parts, band, box, oval, pick, polygon, shade

HAIR = {
    "black": (48, 44, 56),
    "brown": (122, 78, 48),
    "blonde": (238, 204, 112),
    "red": (196, 84, 48),
    "silver": (204, 208, 218),
    "blue": (84, 128, 214),
    "pink": (240, 144, 180),
    "green": (92, 168, 112),
}
EYES = {"brown": (120, 76, 44), "blue": (56, 116, 216), "green": (60, 150, 84), "purple": (140, 80, 180)}
SKIN = ((250, 222, 196), (232, 190, 150), (190, 136, 98), (138, 94, 68))
LENGTHS = ("short", "shoulder-length", "long")
ACCESSORIES = ("glasses", "hat", "scarf", "earrings", "hair bow", "headphones")
EXPRESSIONS = {  # description of the face, and of the personality
    "smiling": ("a broad smile", "Cheerful and open, makes friends wherever the road leads."),
    "serious": ("a serious look", "Calm and reserved, thinks twice before speaking once."),
    "sad": ("a sad frown", "Gentle and melancholy, remembers what others would rather forget."),
    "surprised": ("a surprised look", "Curious and easily amazed, asks about everything."),
    "angry": ("an angry scowl", "Proud and quick-tempered, but the first to defend a friend."),
}
BROWS = {"angry": (0.425, 0.375), "sad": (0.365, 0.41), "surprised": (0.375, 0.365)}  # height of their ends


@dataclass(frozen=True)
class Portrait:
    """Head and shoulders of an invented character; everything in its description is visible."""

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
        outfit, accessory = f"{self.outfit} outfit", f"{self.accessory_colour} {self.accessory}"
        if self.accessory not in ("glasses", "earrings", "headphones"):
            accessory = _with_article(accessory)
        return (
            f"{self.character} has {self.length} {self.hair} hair and {self.eyes} eyes, wears {_with_article(outfit)} "
            f"and {accessory}, and shows {EXPRESSIONS[self.expression][0]}."
        )

    @property
    def personality(self) -> str:
        return EXPRESSIONS[self.expression][1]

    def parts(self) -> Iterator[Part]:
        skin, shadow, iris = SKIN[self.skin], _darker(SKIN[self.skin]), EYES[self.eyes]
        hair, outfit, wide = HAIR[self.hair], COLOURS[self.outfit], 0.012 if self.expression == "surprised" else 0.0
        yield from background_parts("sky", "blue")
        back = {
            "short": [oval(hair, 0.235, 0.1, 0.765, 0.62)],
            "shoulder-length": [oval(hair, 0.19, 0.12, 0.81, 0.80)],
            "long": [oval(hair, 0.17, 0.12, 0.83, 0.9), box(hair, 0.17, 0.5, 0.83, 1)],
        }[self.length]
        body = [
            *back,
            oval(outfit, 0.12, 0.76, 0.88, 1.5),
            box(shadow, 0.43, 0.62, 0.57, 0.80),
            polygon(shadow, 0.40, 0.78, 0.60, 0.78, 0.5, 0.92),
            oval(shadow, 0.23, 0.42, 0.32, 0.56),
            oval(shadow, 0.68, 0.42, 0.77, 0.56),
            oval(skin, 0.27, 0.18, 0.73, 0.72),
            (
                hair,
                np.concatenate(
                    [
                        oval("", 0.24, 0.1, 0.76, 0.72, 180, 360)[1],
                        [(0.70, 0.37), (0.62, 0.30), (0.5, 0.36), (0.40, 0.30), (0.30, 0.38)],
                    ]
                ),
            ),
        ]
        inner, outer = BROWS.get(self.expression, (0.40, 0.39))
        face = [
            *(
                shape
                for x in (0.40, 0.60)
                for shape in (
                    oval(FIXED["white"], x - 0.06, 0.43 - wide, x + 0.06, 0.53 + wide),
                    oval(iris, x - 0.04, 0.435, x + 0.04, 0.525),
                    oval(FIXED["ink"], x - 0.017, 0.46, x + 0.017, 0.5),
                )
            ),
            polygon(shadow, 0.5, 0.51, 0.475, 0.575, 0.52, 0.575),
            *(
                polygon(FIXED["ink"], near, inner, far, outer, far, outer + 0.018, near, inner + 0.022)
                for near, far in ((0.5 - 0.05, 0.5 - 0.16), (0.5 + 0.05, 0.5 + 0.16))
            ),
        ]
        lips = (176, 58, 66)
        mouth = {
            "smiling": [oval(lips, 0.41, 0.54, 0.59, 0.69, 0, 180), box(FIXED["white"], 0.44, 0.616, 0.56, 0.634)],
            "serious": [box(lips, 0.44, 0.63, 0.56, 0.648)],
            "sad": [band(lips, 190, 350, (0.42, 0.62, 0.58, 0.72), (0.43, 0.642, 0.57, 0.74))],
            "surprised": [oval(lips, 0.465, 0.59, 0.535, 0.68)],
            "angry": [polygon(lips, 0.43, 0.66, 0.5, 0.635, 0.57, 0.66, 0.57, 0.642, 0.5, 0.61, 0.43, 0.642)],
        }[self.expression]
        main, dark = shade(self.accessory_colour, "main"), shade(self.accessory_colour, "dark")
        _, rim = band(main, 0, 360, (0.31, 0.39, 0.49, 0.57), (0.33, 0.41, 0.47, 0.55))
        accessory = {
            "glasses": [(main, rim), (main, rim + [0.2, 0]), box(main, 0.48, 0.465, 0.52, 0.485)],
            "hat": [
                oval(main, 0.27, 0.0, 0.73, 0.46, 180, 360),
                box(dark, 0.27, 0.18, 0.73, 0.24),
                oval(main, 0.14, 0.21, 0.86, 0.31),
            ],
            "scarf": [oval(main, 0.31, 0.70, 0.69, 0.86), polygon(dark, 0.56, 0.8, 0.66, 0.8, 0.70, 1, 0.58, 1)],
            "earrings": [oval(main, x - 0.035, 0.56, x + 0.035, 0.66) for x in (0.26, 0.74)],
            "hair bow": [
                polygon(main, 0.66, 0.18, 0.5, 0.08, 0.52, 0.26, 0.66, 0.18, 0.82, 0.08, 0.8, 0.28),
                oval(dark, 0.62, 0.14, 0.70, 0.22),
            ],
            "headphones": [
                band(dark, 180, 360, (0.19, 0.05, 0.81, 0.95), (0.23, 0.1, 0.77, 0.9)),
                oval(main, 0.16, 0.4, 0.28, 0.6),
                oval(main, 0.72, 0.4, 0.84, 0.6),
            ],
        }[self.accessory]
        for colour, points in [*body, *face, *mouth, *accessory]:
            yield Part(np.clip(points, 0, 1), colour, 0)


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (round(value * 0.82) for value in colour)
    return red, green, blue


def _with_article(words: str) -> str:
    return f"{'an' if words.startswith('orange') else 'a'} {words}"


def random_portrait(random: np.random.Generator, character: str) -> Portrait:
    hair = pick(random, HAIR)
    others = [colour for colour in COLOURS if colour not in ("brown", hair)]  # visible against the hair
    outfit, accessory_colour = (str(colour) for colour in random.choice(others, 2, replace=False))
    return Portrait(
        character,
        hair,
        pick(random, LENGTHS),
        pick(random, EYES),
        outfit,
        pick(random, ACCESSORIES),
        accessory_colour,
        pick(random, EXPRESSIONS),
        int(random.integers(len(SKIN))),
    )
