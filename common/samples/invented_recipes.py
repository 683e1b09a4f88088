"""Recipes of the invented styles: parameters that occur together, drawn from a seed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from common.samples.invented_palettes import Colour, darker, draw_palette, lighter
from common.samples.invented_style import Finish, Form, InventedStyle, Light, Paint, Pen

Random = np.random.Generator
ICONS, GLYPHS, ANY = ("icon", "icon", "object"), ("glyph",), ("icon", "glyph", "object", "scene")
BLACK: tuple[Colour, ...] = ((0, 0, 0),)


def log_uniform(random: Random, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def some(random: Random, chance: float, low: float, high: float) -> float:
    """0, or with some chance a value in the range."""
    return float(random.uniform(low, high)) if random.random() < chance else 0.0


def pick(random: Random, *options: Any) -> Any:
    return options[random.integers(len(options))]


def _form(random: Random) -> Form:
    return Form(
        radius=pick(random, 0.0, 0.0, 2.0, 4.0, 7.0, 11.0, 18.0),
        cut=random.random() < 0.12,
        facet=pick(random, *[0.0] * 7, 30.0, 45.0, 60.0, 90.0),
        slant=some(random, 0.15, -0.3, 0.4),
        stretch=1 + some(random, 0.25, -0.35, 0.4),
        tilt=some(random, 0.07, -20, 20),
        flare=some(random, 0.15, -0.35, 0.45),
        detail=pick(random, 1.0, 1.0, 0.6, 0.3),
    )


def _hand(random: Random, form: Form) -> Form:
    return replace(form, facet=0.0, wobble=log_uniform(random, 0.7, 5.0), waves=log_uniform(random, 2, 9))


def _pen(random: Random, stroke: float, weight: float | None = None) -> Pen:
    cap = pick(random, "round", "round", "butt", "square")
    join: Any = "round" if cap == "round" else pick(random, "miter", "bevel", "round")
    return Pen(stroke, stroke if weight is None else weight, cap=cap, join=join)


def _plate(random: Random, chance: float) -> Finish:
    if random.random() > chance:
        return Finish()
    return Finish(
        plate=pick(random, "disc", "disc", "rounded", "rounded", "square", "hexagon"), plate_slot=pick(random, -1, 0, 1)
    )


def _ink(random: Random) -> tuple[tuple[Colour, ...], Colour]:
    """Black in two of three, otherwise one dark or one strong colour."""
    if random.random() < 0.65:
        return BLACK, (0, 0, 0)
    palette = draw_palette(random, pick(random, "greys", "bright", "earth"))
    return palette, darker(palette[0], random.uniform(0, 0.7))


def line_icons(random: Random) -> InventedStyle:
    palette, ink = _ink(random)
    pen = _pen(random, log_uniform(random, 1.5, 13.0))
    pen = replace(pen, dash=some(random, 0.15, 0.08, 0.3), dash_period=random.uniform(14, 60))
    if random.random() < 0.15:
        pen = replace(pen, hollow=max(pen.weight * random.uniform(0.15, 0.3), 1.2))
    scheme = pick(random, "line", "line", "line", "accent")
    paint = Paint(palette, ink, scheme=scheme, covers=random.random() < 0.8)
    return InventedStyle(ICONS, pen, _form(random), paint, Light(), _plate(random, 0.08))


def tinted_line_icons(random: Random) -> InventedStyle:
    style = line_icons(random)
    palette = draw_palette(random, pick(random, "duotone", "duotone", "greys", "pastel", "bright"))
    ink = pick(random, (0, 0, 0), darker(palette[0], 0.5), darker(palette[0], 0.8), palette[0])
    tints = tuple(lighter(colour, random.uniform(0.4, 0.85)) for colour in palette[:2])
    paint = Paint(
        tints, ink, scheme=pick(random, "duo", "accent", "colours"), shift=some(random, 0.3, -7, 7), covers=True
    )
    return replace(style, paint=paint)


def solid_icons(random: Random) -> InventedStyle:
    palette, ink = _ink(random)
    gap = pick(random, 0.0, 2.0, 4.0, 6.0)
    pen = replace(_pen(random, gap, log_uniform(random, 4, 14)), soften=some(random, 0.15, 1, 4))
    paint = Paint(palette, ink, scheme="solid", outline="paper")
    if random.random() < 0.4:
        pen, paint = replace(pen, stroke=log_uniform(random, 3, 10)), replace(paint, outline="ink")
    return InventedStyle(ICONS, pen, _form(random), paint, Light(), _plate(random, 0.12))


def duotone_icons(random: Random) -> InventedStyle:
    palette = draw_palette(random, pick(random, "duotone", "greys", "duotone"))
    paint = Paint(palette, palette[0], scheme="duo", opacity=random.uniform(0.35, 1), outline="paper")
    pen = _pen(random, pick(random, 0.0, 0.0, 3.0), log_uniform(random, 4, 13))
    return InventedStyle(ICONS, pen, _form(random), paint, Light(), Finish())


def flat_colours(random: Random) -> InventedStyle:
    palette = draw_palette(random)
    pen = _pen(random, 0.0, log_uniform(random, 4, 12))
    light = Light(crescent=some(random, 0.4, 2, 8), shadow=pick(random, "none", "none", "long", "hard"))
    finish = _plate(random, 0.2)
    length = log_uniform(random, 3, 60 if finish.plate != "none" and light.shadow == "long" else 9)
    light = replace(light, shadow_length=length, shadow_strength=random.uniform(0.15, 0.5))
    paint = Paint(palette, darker(palette[0], 0.7), scheme="colours", outline="paper")
    return InventedStyle(pick(random, ICONS, ICONS, ANY), pen, _form(random), paint, light, finish)


def outlined_colours(random: Random) -> InventedStyle:
    style = flat_colours(random)
    pen = _pen(random, log_uniform(random, 1.2, 7))
    ink = pick(random, (0, 0, 0), darker(style.paint.palette[0], 0.8), darker(style.paint.palette[1], 0.6))
    paint = replace(style.paint, ink=ink, outline=pick(random, "ink", "ink", "darker"), shift=some(random, 0.15, -6, 6))
    return replace(style, pen=replace(pen, dash=some(random, 0.1, 0.1, 0.3)), paint=paint)


def shaded(random: Random) -> InventedStyle:
    """Desktop icons and emoji with gradients, bevels, gloss and soft shadows."""
    style = flat_colours(random)
    light = Light(
        crescent=some(random, 0.2, 2, 8),
        bevel=some(random, 0.7, 2, 14),
        bevel_strength=random.uniform(0.3, 1.0),
        gloss=some(random, 0.4, 0.15, 0.6),
        rim=some(random, 0.25, 1, 3),
        shadow=pick(random, "none", "soft", "soft"),
        shadow_length=random.uniform(1, 7),
        shadow_blur=log_uniform(random, 1, 6),
        shadow_strength=random.uniform(0.2, 0.6),
    )
    paint = replace(
        style.paint,
        fill=pick(random, "gradient", "gradient", "radial", "flat"),
        strength=random.uniform(0.2, 0.8),
        angle=pick(random, 0.0, 90.0, 90.0, 45.0, -45.0),
        outline="darker",
    )
    stroke = some(random, 0.5, 1, 3)
    return replace(style, pen=replace(style.pen, stroke=stroke), paint=paint, light=light)


def printed(random: Random) -> InventedStyle:
    """Hatched, screened, stippled or washed areas on paper, with or without lines."""
    style = pick(random, outlined_colours, flat_colours, line_icons, solid_icons)(random)
    paint = replace(
        style.paint,
        scheme=pick(random, "colours", "duo") if style.paint.scheme != "solid" else "solid",
        fill=pick(random, "hatch", "cross", "dots", "grain", "wash", "bars"),
        strength=random.uniform(0.4, 1.0),
        angle=pick(random, 0.0, 15.0, 45.0, 75.0, 90.0, 135.0),
        period=log_uniform(random, 3, 12),
        shift=some(random, 0.3, -5, 5),
    )
    finish = replace(style.finish, texture=some(random, 0.25, 2, 12))
    form = _hand(random, style.form) if random.random() < 0.5 else style.form
    return replace(style, form=form, paint=paint, finish=finish, light=replace(style.light, shadow="none"))


def sketch(random: Random) -> InventedStyle:
    """Pencil, brush and ballpoint: wobble, echo, taper."""
    style = pick(random, line_icons, line_icons, outlined_colours, tinted_line_icons)(random)
    pen = replace(
        style.pen,
        echo=pick(random, 0, 0, 1, 2),
        taper=some(random, 0.6, 0.3, 0.95),
        contrast=some(random, 0.4, 0.3, 0.8),
        rough=some(random, 0.3, 0.4, 1.5),
        stroke=log_uniform(random, 1.2, 7),
        weight=log_uniform(random, 1.5, 9),
        cap="round",
        join="round",
    )
    subjects = pick(random, ICONS, ICONS, ANY, GLYPHS)
    return replace(style, subjects=subjects, pen=pen, form=_hand(random, style.form))


def typeface(random: Random) -> InventedStyle:
    """Letters of one ink: a pen's contrast, serifs, slant, width and weight."""
    weight = log_uniform(random, 2.5, 36)
    cap = pick(random, "butt", "butt", "round")
    pen = Pen(0.0, weight, cap=cap, join=pick(random, "miter", "round") if cap == "butt" else "round")
    if random.random() < 0.45:
        pen = replace(pen, contrast=random.uniform(0.3, 0.92), angle=pick(random, 0.0, 0.0, 20.0, 45.0, 90.0))
    form = replace(
        _form(random),
        slant=some(random, 0.35, 0.1, 0.5),
        stretch=random.uniform(0.55, 1.1),
        serif=some(random, 0.35, 0.5, 1.1) * (weight / 2 + 6),
        serif_weight=random.uniform(0.15, 1.0),
        stencil=some(random, 0.1, 3, 8),
        facet=pick(random, *[0.0] * 8, 45.0, 90.0),
    )
    if random.random() < 0.3:
        pen = replace(pen, taper=some(random, 0.5, 0.2, 0.9), rough=some(random, 0.4, 0.5, 2.5))
        form = replace(form, wobble=log_uniform(random, 0.6, 3), waves=log_uniform(random, 2, 8))
    pen = replace(pen, soften=some(random, 0.15, 1, 5))
    if weight > 14 and random.random() < 0.3:
        pen = replace(pen, hollow=random.uniform(1.2, weight / 5), inline=bool(random.random() < 0.4))
    paint, light, effect = Paint(BLACK, scheme="solid"), Light(), random.random()
    if effect < 0.15:
        fill, angle = pick(random, "hatch", "bars", "grain", "dots", "cross"), pick(random, 0.0, 45.0, 90.0)
        paint = replace(paint, fill=fill, period=log_uniform(random, 4, 13), strength=1.0, angle=angle)
    elif effect < 0.28:  # white letters with a rim and a black shadow
        shadow, length = pick(random, "hard", "block"), log_uniform(random, 3, 12)
        light = Light(shadow=shadow, shadow_length=length, shadow_strength=1.0)
        paint = replace(paint, palette=((255, 255, 255),), scheme="colours")
        pen = replace(pen, stroke=random.uniform(1, 3))
    return InventedStyle(pick(random, GLYPHS, GLYPHS, GLYPHS, ANY), pen, form, paint, light, _plate(random, 0.08))


def pixel(random: Random) -> InventedStyle:
    style = pick(random, typeface, solid_icons, flat_colours, outlined_colours, line_icons)(random)
    grid = int(pick(random, 8, 10, 12, 16, 20, 24, 32, 40))
    pen = replace(style.pen, weight=max(style.pen.weight, 128 / grid), hollow=0.0, rough=0.0)
    pen = replace(pen, stroke=max(pen.stroke, 128 / grid) if pen.stroke else 0.0)
    return replace(style, pen=pen, form=replace(style.form, grid=grid, radius=0.0, wobble=0.0))


def night(random: Random) -> InventedStyle:
    """Light on a dark ground: neon, chalk, blueprints."""
    style = pick(random, line_icons, outlined_colours, sketch)(random)
    palette = draw_palette(random, pick(random, "neon", "pastel", "bright"))
    ground = darker(draw_palette(random)[0], random.uniform(0.7, 0.95))
    paint = replace(style.paint, palette=palette, ink=lighter(palette[0], random.uniform(0, 0.9)), paper=ground)
    light = Light(glow=some(random, 0.5, 2, 8))
    finish = replace(style.finish, texture=some(random, 0.4, 2, 12), plate="none")
    return replace(style, subjects=ANY, paint=paint, light=light, finish=finish)


def sticker(random: Random) -> InventedStyle:
    style = pick(random, flat_colours, outlined_colours, shaded, typeface)(random)
    light = replace(style.light, sticker=random.uniform(2, 6), shadow="soft", shadow_length=random.uniform(1, 5))
    return replace(style, light=replace(light, shadow_strength=0.5), finish=replace(style.finish, plate="none"))


def pictures(random: Random) -> InventedStyle:
    """Maps, cards, faces and landscapes, in any of the coloured ways."""
    style = pick(random, flat_colours, outlined_colours, printed, shaded, sketch)(random)
    finish = replace(style.finish, plate="none", texture=some(random, 0.2, 2, 10))
    return replace(style, subjects=("scene",), finish=finish)


RECIPES: dict[Callable[[Random], InventedStyle], float] = {  # and how often
    line_icons: 0.08,
    tinted_line_icons: 0.09,
    solid_icons: 0.08,
    duotone_icons: 0.04,
    flat_colours: 0.13,
    outlined_colours: 0.14,
    shaded: 0.16,
    printed: 0.07,
    sketch: 0.06,
    typeface: 0.13,
    pixel: 0.04,
    night: 0.02,
    sticker: 0.02,
    pictures: 0.03,
}
