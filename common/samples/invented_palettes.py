"""Palette families of the invented styles."""

import colorsys

import numpy as np

Colour = tuple[int, int, int]  # red, green, blue in [0, 255]

FAMILIES = ("world", "world", "world", "world", "bright", "bright", "pastel", "earth", "neon", "greys", "ramp", "pure")
WORLD = (  # hue, saturation, value: colours of things, which makers of large sets share
    *((0.13, 0.80, 1.00), (0.00, 0.80, 0.90), (0.57, 0.70, 0.95), (0.08, 0.80, 0.98), (0.33, 0.60, 0.70)),
    *((0.06, 0.60, 0.55), (0.55, 0.35, 0.98), (0.93, 0.50, 0.98), (0.76, 0.55, 0.75), (0.60, 0.15, 0.80)),
    *((0.62, 0.25, 0.35), (0.58, 0.06, 0.96)),
)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1)))
    return round(red * 255), round(green * 255), round(blue * 255)


def darker(colour: Colour, share: float) -> Colour:
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 255, 255), share)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second))
    return red, green, blue


def distance(first: Colour, second: Colour) -> int:
    return max(abs(a - b) for a, b in zip(first, second))


def draw_palette(random: np.random.Generator, family: str | None = None) -> tuple[Colour, ...]:
    """Two to seven colours of one family, twelve of the world's."""
    family = family or FAMILIES[random.integers(len(FAMILIES))]
    if family == "world":
        turn, dull, bright = random.normal(0, 0.012), random.uniform(0.65, 1.25), random.uniform(0.8, 1.1)
        jitter = random.normal(0, 0.04, (len(WORLD), 3)) * [0.3, 1, 1]
        return tuple(_colour(h + turn, s * dull, v * bright) for h, s, v in np.array(WORLD) + jitter)
    count, hue = int(random.integers(3, 8)), random.random()
    hues = hue + np.arange(count) / count + random.uniform(-0.08, 0.08, count)
    random.shuffle(hues)
    if family == "duotone":
        dark = _colour(hue, random.uniform(0.6, 1), random.uniform(0.4, 0.9))
        return dark, lighter(dark, random.uniform(0.35, 0.85))
    if family == "greys":
        tint, values = random.uniform(0, 0.15), np.linspace(random.uniform(0.1, 0.5), random.uniform(0.7, 0.97), count)
        return tuple(_colour(hue, tint, value) for value in values)
    if family == "ramp":
        turn = random.uniform(-0.25, 0.25)
        (dull, vivid), (dark, light) = random.uniform(0.3, 1, 2), random.uniform(0.25, 1, 2)
        return tuple(
            _colour(hue + turn * t, dull + (vivid - dull) * t, dark + (light - dark) * t)
            for t in np.linspace(0, 1, count)
        )
    if family == "pure":
        return tuple(_colour(round(h * 6) / 6, 1, random.choice([0.5, 1.0])) for h in hues)
    if family == "earth":
        return tuple(
            _colour(random.uniform(0.02, 0.2), s, v)
            for s, v in zip(random.uniform(0.2, 0.75, count), random.uniform(0.25, 0.9, count))
        )
    (least, most), (darkest, lightest) = {
        "bright": ((0.55, 0.95), (0.6, 1.0)),
        "pastel": ((0.15, 0.45), (0.85, 1.0)),
        "neon": ((0.8, 1.0), (0.95, 1.0)),
    }[family]
    neutral = lighter((60, 60, 70), random.choice([0.0, 0.4, 0.85]))
    colours = [_colour(h, random.uniform(least, most), random.uniform(darkest, lightest)) for h in hues]
    return (*colours[:-1], neutral) if random.random() < 0.5 else tuple(colours)
