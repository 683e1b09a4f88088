"""Drawn styles without end: pictures of invented contents in invented styles.

style seed   -> InventedStyle  (common/samples/invented_recipes.py)
content seed -> pieces         (common/samples/invented_contents.py) -> bent, filled, outlined, lit -> (S, S, 3) uint8

Everything is a pure function of its arguments. All lengths of a style are pixels of a picture of 128 pixels a side.

    python -m common.samples.invented docs/invented_styles.png
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from common.images.contact_sheet import save_picture
from common.samples.invented_contents import SUBJECTS, Piece, box, draw_content, ellipse
from common.samples.invented_finish import finish, on_grid
from common.samples.invented_palettes import Colour, darker, lighter
from common.samples.invented_recipes import invented_style
from common.samples.invented_shading import Shader, cast_shadow, dilate, moved
from common.samples.invented_strokes import MaskPainter, bend, serifs
from common.samples.invented_style import InventedStyle

__all__ = ["InventedStyle", "bank_contents", "draw", "draw_bank", "invented_style"]

POOL = 4  # contents of one subject in a bank, in multiples of the contents that a style shows


def draw(style: InventedStyle, content_seed: int, size: int = 128) -> np.ndarray:
    """A content in a style -> (size, size, 3) uint8"""
    return Drawing(style, content_seed, size).picture()


def bank_contents(styles: int, per_style: int, seed: int = 0) -> np.ndarray:
    """Content seeds of a bank (styles, per_style). Styles of one subject choose from one pool of POOL * per_style."""
    random = np.random.default_rng([seed, 809])
    seeds = np.empty((styles, per_style), dtype=np.int64)
    for number in range(styles):
        subjects = [SUBJECTS.index(name) for name in invented_style(style_seed(seed, number)).subjects]
        chosen = random.permutation(POOL * per_style)[:per_style]
        seeds[number] = (seed * 100_003 + chosen) * len(SUBJECTS) + random.choice(subjects, per_style)
    return seeds


def style_seed(seed: int, number: int) -> int:
    """Seed of a style of a bank: banks of different seeds share no style."""
    return seed * 1_000_003 + number


def draw_bank(styles: int, per_style: int, size: int, seed: int = 0) -> np.ndarray:
    """`styles` invented styles, each with `per_style` of its contents -> (styles, per_style, size, size, 3) uint8"""
    contents = bank_contents(styles, per_style, seed)
    bank = np.empty((styles, per_style, size, size, 3), dtype=np.uint8)

    def draw_style(number: int) -> None:
        style = invented_style(style_seed(seed, number))
        for column, content in enumerate(contents[number].tolist()):
            bank[number, column] = draw(style, content, size)

    with ThreadPoolExecutor() as threads:
        list(threads.map(draw_style, range(styles)))
    return bank


class Drawing:
    """One picture, drawn from back to front."""

    def __init__(self, style: InventedStyle, content_seed: int, size: int):
        self.style, self.unit = style, size / 128
        self.random = np.random.default_rng([content_seed, 701])
        self.masks = MaskPainter(style.pen, size, style.form.grid > 0, self.random)
        self.shader = Shader(style.paint, style.light, size, self.random)
        self.hands = self.random.uniform(0, 2 * np.pi, (1 + style.pen.echo, 2, 2, 3))
        self.content = draw_content(content_seed)
        self.canvas = Image.new("RGB", (size, size), style.paint.paper)
        self.alpha = Image.new("L", (size, size))
        self.under: dict[int, Colour] = {-1: style.paint.paper}  # depth -> colour of the last area there

    def picture(self) -> np.ndarray:
        style, clip = self.style, None
        ground = self.canvas.copy()
        if style.finish.plate != "none":
            self._plate()
            ground, clip = self._stack(ground, None), self.alpha
            self.canvas, self.alpha = ground.copy(), Image.new("L", ground.size)
        for piece in self._fitted():
            self._piece(piece)
        picture = self._stack(ground, clip)
        if style.form.grid:
            picture = on_grid(picture, style.form.grid, style.finish.size * self.unit)
        return finish(picture, style.finish, self.random)

    def _stack(self, ground: Image.Image, clip: Image.Image | None) -> Image.Image:
        """What was drawn since the last time, above its shadow, above the ground."""
        light, whole = self.style.light, self.alpha
        if light.sticker:
            whole = dilate(whole, light.sticker * self.unit)
        if light.shadow != "none":
            shadow = cast_shadow(whole, light, self.unit)
            tone = self.style.paint.ink if light.shadow in ("block", "hard") else (20, 20, 30)
            ground.paste(tone, (0, 0), ImageChops.multiply(shadow, clip) if clip else shadow)
        if light.sticker:
            ground.paste((255, 255, 255) if light.shadow != "none" else (225, 228, 236), (0, 0), whole)
        ground.paste(self.canvas, (0, 0), self.alpha)
        if light.glow:
            lamp = Image.composite(self.canvas, Image.new("RGB", ground.size), self.alpha)
            ground = ImageChops.add(ground, lamp.filter(ImageFilter.GaussianBlur(light.glow * self.unit)))
        return ground

    def _plate(self) -> None:
        """A disc or tile behind the content, the same in every picture of the style."""
        style, radius = self.style, self.style.finish.size / 2
        slot = style.finish.plate_slot if style.finish.plate_slot >= 0 else int(self.random.integers(6))
        path = {
            "disc": lambda: ellipse(64, 64, radius, radius),
            "square": lambda: box(64, 64, radius, radius),
            "rounded": lambda: box(64, 64, radius, radius * 0.85),
            "hexagon": lambda: ellipse(64, 64, radius, radius)[::5],
        }[style.finish.plate]()
        form = style.form if style.finish.plate != "rounded" else type(style.form)(radius=14)
        self._area([bend(path, True, form, self.hands[0])], True, style.paint.palette[slot % len(style.paint.palette)])
        self.under[-1] = style.paint.palette[slot % len(style.paint.palette)]

    def _fitted(self) -> list[Piece]:
        """Pieces in pixels of a picture of 128: slanted, stretched, scaled to the frame, with the form of the style."""
        style, form = self.style, self.style.form
        tilt = np.radians(form.tilt)
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        matrix = np.diag([form.stretch, 1.0]) @ np.array([[1, 0], [-form.slant, 1]]) @ turn
        pieces = [p for p in self.content.pieces if p.depth == 0 or p.rank <= form.detail]
        moved_paths = [[path @ matrix for path in piece.paths] for piece in pieces]
        points = np.concatenate([path for paths in moved_paths for path in paths])
        low, high = points.min(0), points.max(0)
        ink = max(style.pen.stroke, style.pen.weight if any(not p.closed for p in pieces) else 0)
        margin = ink + 2 * style.light.sticker + 2 * form.wobble
        shadow = style.light.shadow_length if style.light.shadow != "none" and style.finish.plate == "none" else 0.0
        side = style.finish.size * (1.0 if style.finish.plate == "none" else 0.6) - margin - shadow
        scale = max(side, 30.0) / max((high - low).max(), 1e-6)
        middle = 64 - shadow / 2
        result = []
        for piece, paths in zip(pieces, moved_paths):
            placed = [(path - (low + high) / 2) * scale + middle for path in paths]
            placed = [bend(path, piece.closed, form, self.hands[0]) for path in placed if np.ptp(path, 0).max() > 1.5]
            if placed:
                result.append(piece._replace(paths=placed))
        return result

    def _piece(self, piece: Piece) -> None:
        pen, paint = self.style.pen, self.style.paint
        colour = self._colour(piece)
        if not piece.closed:
            width = pen.weight if piece.depth == 0 else min(pen.weight, max(pen.stroke, 0.6 * pen.weight))
            thick = pen.stroke > 0 and width > 2.2 * pen.stroke and paint.scheme != "line"
            if thick and paint.outline != "paper" or pen.hollow:
                self._ribbon(piece, width, colour)
            else:
                line = paint.ink if pen.stroke and paint.outline == "ink" and paint.scheme != "solid" else colour
                self._lines(piece.paths, False, width, line or paint.ink)
            return
        self._area(piece.paths, True, colour)
        if colour:
            self.under[piece.depth] = colour

    def _colour(self, piece: Piece) -> Colour | None:
        """Of the area or free line; None for an area that is left empty."""
        paint, depth, slot = self.style.paint, piece.depth, piece.slot
        palette, below = paint.palette, self.under.get(depth - 1, paint.paper)
        if paint.scheme == "solid":
            return paint.ink if depth % 2 == 0 else paint.paper
        if paint.scheme == "duo":
            pale = palette[1] if len(palette) > 1 else lighter(palette[0], 0.7)
            return pale if piece.closed and depth % 2 == 0 else palette[0]
        if paint.scheme == "line" or (paint.scheme == "accent" and (slot + depth) % 2):
            return None if piece.closed else paint.ink
        if paint.scheme == "accent":
            return palette[0]
        choices = [palette[(slot + depth + step) % len(palette)] for step in range(len(palette))]
        return next((c for c in choices if distance(c, below) > 40), paint.ink)

    def _area(self, paths: list[np.ndarray], closed: bool, colour: Colour | None) -> None:
        """A region and its outline; without a colour it hides what is behind it, or not."""
        pen, paint = self.style.pen, self.style.paint
        mask = self.masks.region(paths)
        if self.style.form.stencil:
            mask = self._bridges(mask)
        if colour is None:
            if paint.covers:
                self.canvas.paste(paint.paper, (0, 0), mask)
        else:
            self._fill(mask, colour)
        if pen.stroke:
            self._lines(paths, closed, pen.stroke, self._outline(colour))
        elif colour is None:
            self._lines(paths, closed, pen.weight, paint.ink)

    def _ribbon(self, piece: Piece, width: float, colour: Colour | None) -> None:
        """A thick free line as an area with a rim."""
        pen, paint = self.style.pen, self.style.paint
        rim = pen.hollow or pen.stroke
        self._lines(piece.paths, False, width + (0 if pen.hollow else 2 * rim), self._outline(colour))
        inner = width - 2 * rim if pen.hollow else width
        self._fill(
            self.masks.lines(piece.paths, False, max(inner, 1.0)), paint.paper if pen.hollow else colour or paint.paper
        )
        if pen.inline:
            self._lines(piece.paths, False, rim, self._outline(colour))

    def _fill(self, mask: Image.Image, colour: Colour) -> None:
        shift = self.style.paint.shift * self.unit
        mask = moved(mask, shift, shift) if shift else mask
        self.shader.fill(self.canvas, mask, colour)
        self.alpha.paste(255, (0, 0), mask)

    def _lines(self, paths: list[np.ndarray], closed: bool, width: float, colour: Colour) -> None:
        mask = self.masks.lines(paths, closed, width)
        if self.style.form.serif and not closed and self.content.subject == "glyph":
            thickness = width - self.style.pen.weight * (1 - self.style.form.serif_weight)
            mask = ImageChops.lighter(
                mask, self.masks.lines(serifs(paths, self.style.form), False, max(thickness, 1.0))
            )
        for hand in self.hands[1:]:
            form = self.style.form
            again = [
                bend(path, closed, type(form)(wobble=max(form.wobble, 1.0), waves=form.waves * 1.3), hand)
                for path in paths
            ]
            mask = ImageChops.lighter(mask, self.masks.lines(again, closed, width))
        if self.style.form.stencil and not closed:
            mask = self._bridges(mask)
        if not closed and width > 6 and self.style.paint.fill != "flat":
            self.shader.fill(self.canvas, mask, colour)
        else:
            self.canvas.paste(colour, (0, 0), mask)
        self.alpha.paste(255, (0, 0), mask)

    def _bridges(self, mask: Image.Image) -> Image.Image:
        """Cut a vertical gap through the middle."""
        left, _, right, _ = mask.getbbox() or (0, 0, 0, 0)
        half = self.style.form.stencil * self.unit / 2
        middle = (left + right) / 2
        mask.paste(0, (round(middle - half), 0, round(middle + half), mask.height))
        return mask

    def _outline(self, colour: Colour | None) -> Colour:
        paint = self.style.paint
        if paint.outline == "paper":
            return self.under[-1]
        return darker(colour, 0.45) if paint.outline == "darker" and colour else paint.ink


def distance(first: Colour, second: Colour) -> int:
    return max(abs(a - b) for a, b in zip(first, second))


def style_sheet(rows: int = 24, columns: int = 12, size: int = 64, seed: int = 0) -> Image.Image:
    """A row for each style of a bank."""
    bank = draw_bank(rows, columns, size, seed)
    return Image.fromarray(bank.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3))


if __name__ == "__main__":
    save_picture(sys.argv[1], style_sheet())
