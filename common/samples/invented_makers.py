"""Makers of invented styles: a style drawn from the recipes, and its variants."""

from dataclasses import replace

import numpy as np

from common.samples.invented_palettes import darker, distance, draw_palette, lighter, mix
from common.samples.invented_recipes import RECIPES, Random, log_uniform, pick, shaded, some
from common.samples.invented_style import InventedStyle


def draw_style(random: Random) -> InventedStyle:
    """A style of one recipe, in one of five with a part of another one."""
    chosen = random.choice(len(RECIPES), 2, p=np.array([*RECIPES.values()]) / sum(RECIPES.values()))
    style, other = (list(RECIPES)[index](random) for index in chosen)
    if random.random() < 0.2:
        part = pick(random, "pen", "form", "light")
        style = replace(style, **{part: getattr(other, part)})
    return legible(_reproduced(random, style))


def draw_variant(random: Random, style: InventedStyle) -> InventedStyle:
    """Another style of the same maker: bolder or thinner, rounder, narrower, slanted, in other colours, or shaded."""
    pen, form, paint = style.pen, style.form, style.paint
    kind = random.integers(6)
    if kind == 0:
        factor = pick(random, 0.5, 1.9) if 3 < max(pen.weight, pen.stroke) < 8 else 7 / max(pen.weight, pen.stroke, 1)
        weight = max(pen.weight * factor, 1.2)
        stroke = max(pen.stroke * factor, 1.2) if pen.stroke and paint.outline != "paper" else pen.stroke
        return replace(style, pen=replace(pen, stroke=stroke, weight=weight, hollow=pen.hollow * factor))
    if kind == 1:
        round_now = form.radius > 3
        pen = replace(pen, cap="butt" if round_now else "round", join="miter" if round_now else "round")
        return replace(style, pen=pen, form=replace(form, radius=0.0 if round_now else 12.0, facet=0.0, cut=False))
    if kind == 2:
        changes = {"slant": form.slant + 0.3}, {"stretch": form.stretch * 0.65}, {"wobble": 0.0 if form.wobble else 3.0}
        return replace(style, form=replace(form, **pick(random, *changes)))
    palette = draw_palette(random)
    ink = darker(palette[0], random.uniform(0.2, 0.8))
    if kind == 3 or paint.scheme in ("line", "solid"):
        scheme = pick(random, *(name for name in ("line", "solid", "duo", "accent") if name != paint.scheme))
        ink = pick(random, ink, paint.ink)
        return replace(style, paint=replace(paint, scheme=scheme, palette=palette, ink=ink))
    if kind == 4:
        return replace(style, paint=replace(paint, palette=palette, ink=ink))
    light = shaded(random)
    return replace(style, light=light.light, paint=replace(paint, fill=light.paint.fill, strength=light.paint.strength))


def _reproduced(random: Random, style: InventedStyle) -> InventedStyle:
    """The style as it is framed, printed and stored."""
    finish = replace(
        style.finish,
        size=pick(random, *[116.0] * 8, 104.0, 92.0),
        blur=some(random, 0.05, 0.4, 1.2),
        sharpen=pick(random, 0.0, 0.0, 0.15, 0.3, log_uniform(random, 0.1, 1)),  # mostly the halo of a good reduction
        noise=some(random, 0.03, 2, 10),
        jpeg=int(some(random, 0.05, 30, 90)),
        levels=int(some(random, 0.02, 3, 6)),
    )
    paper = style.paint.paper
    if random.random() < 0.06 and paper == (255, 255, 255):
        paper = lighter(draw_palette(random)[0], random.uniform(0.6, 0.95))
    return replace(style, finish=finish, paint=replace(style.paint, paper=paper))


def legible(style: InventedStyle) -> InventedStyle:
    """The style with ink that can be seen on its paper, and lines as wide as its pixels."""
    paint, cell = style.paint, 1.4 * style.finish.size / max(style.form.grid, 1)
    pen = replace(style.pen, weight=max(style.pen.weight, 1.8))
    if distance(paint.ink, paint.paper) < 90:
        paint = replace(paint, ink=(lighter if sum(paint.paper) < 384 else darker)(paint.ink, 0.7))
    pale = paint.palette[min(1, len(paint.palette) - 1)]
    if paint.scheme == "duo" and distance(pale, paint.paper) * paint.opacity < 45:
        paint = replace(paint, palette=(paint.palette[0], mix(paint.palette[0], paint.paper, 0.6)), opacity=0.8)
    if paint.scheme in ("line", "accent"):
        pen, paint = replace(pen, stroke=pen.stroke or pen.weight), replace(paint, outline="ink")
    if style.form.grid:
        pen = replace(pen, weight=max(pen.weight, cell), stroke=max(pen.stroke, cell) if pen.stroke else 0.0, rough=0.0)
    return replace(style, pen=pen, paint=paint)
