"""A content drawn in an invented style.

pieces -> bent into the style's form -> areas filled and shaded, lines drawn -> above their shadow, above the ground
"""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from common.samples.invented_contents import Piece, box, draw_content, ellipse
from common.samples.invented_finish import finish, on_grid
from common.samples.invented_palettes import Colour, darker, distance, lighter
from common.samples.invented_shading import Shader, cast_shadow, dilate, moved, put
from common.samples.invented_strokes import MaskPainter, bend, serifs
from common.samples.invented_style import Form, InventedStyle


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
        self.ink = style.paint.ink
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
            tone = self.ink if light.shadow in ("block", "hard") else (20, 20, 30)
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
        form = style.form if style.finish.plate != "rounded" else Form(radius=14.0)
        colour = style.paint.palette[slot % len(style.paint.palette)]
        self._area([bend(path, True, form, self.hands[0])], True, colour)
        self.under[-1] = colour
        if distance(colour, self.ink) < 60:
            self.ink = style.paint.paper

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
                line = self.ink if pen.stroke and paint.outline == "ink" and paint.scheme != "solid" else colour
                self._lines(piece.paths, False, width, line or self.ink)
            return
        self._area(piece.paths, True, colour)
        if colour:
            self.under[piece.depth] = colour

    def _colour(self, piece: Piece) -> Colour | None:
        """Of the area or free line; None for an area that is left empty."""
        paint, depth, slot = self.style.paint, piece.depth, piece.slot
        palette, below = paint.palette, self.under.get(depth - 1, self.under[-1])
        if paint.scheme == "solid":
            return self.ink if depth % 2 == 0 else self.under[-1]
        if paint.scheme == "duo":
            pale = palette[1] if len(palette) > 1 else lighter(palette[0], 0.7)
            return pale if piece.closed and depth % 2 == 0 else palette[0]
        if paint.scheme == "line" or (paint.scheme == "accent" and (slot + depth) % 2):
            return None if piece.closed else self.ink
        if paint.scheme == "accent":
            return palette[0]
        choices = [palette[(slot + depth + step) % len(palette)] for step in range(len(palette))]
        return next((c for c in choices if distance(c, below) > 40), self.ink)

    def _area(self, paths: list[np.ndarray], closed: bool, colour: Colour | None) -> None:
        """A region and its outline; without a colour it hides what is behind it, or not."""
        pen, paint = self.style.pen, self.style.paint
        mask = self.masks.region(paths)
        if self.style.form.stencil:
            mask = self._bridges(mask)
        if colour is None:
            if paint.covers:
                put(self.canvas, self.under[-1], mask)
        else:
            self._fill(mask, colour)
        if pen.stroke:
            self._lines(paths, closed, pen.stroke, self._outline(colour))
        elif colour is None:
            self._lines(paths, closed, pen.weight, self.ink)

    def _ribbon(self, piece: Piece, width: float, colour: Colour | None) -> None:
        """A thick free line as an area with a rim."""
        pen = self.style.pen
        rim = pen.hollow or pen.stroke
        self._lines(piece.paths, False, width + (0 if pen.hollow else 2 * rim), self._outline(colour))
        inner = self.masks.lines(piece.paths, False, max(width - 2 * rim if pen.hollow else width, 1.0))
        self._fill(inner, self.under[-1] if pen.hollow or not colour else colour)
        if pen.inline:
            self._lines(piece.paths, False, rim, self._outline(colour))

    def _fill(self, mask: Image.Image, colour: Colour) -> None:
        shift = self.style.paint.shift * self.unit
        mask = moved(mask, shift, shift) if shift else mask
        self.shader.fill(self.canvas, mask, colour)
        put(self.alpha, 255, mask)

    def _lines(self, paths: list[np.ndarray], closed: bool, width: float, colour: Colour) -> None:
        form, mask = self.style.form, self.masks.lines(paths, closed, width)
        bars = serifs(paths, form) if form.serif and not closed and self.content.subject == "glyph" else []
        if bars:
            thickness = width - self.style.pen.weight * (1 - form.serif_weight)
            mask = ImageChops.lighter(mask, self.masks.lines(bars, False, max(thickness, 1.0)))
        again = Form(wobble=max(form.wobble, 1.0), waves=form.waves * 1.3)
        for hand in self.hands[1:]:
            echo = self.masks.lines([bend(path, closed, again, hand) for path in paths], closed, width)
            mask = ImageChops.lighter(mask, echo)
        if form.stencil and not closed:
            mask = self._bridges(mask)
        if not closed and width > 6 and self.style.paint.fill != "flat":
            self.shader.fill(self.canvas, mask, colour)
        else:
            put(self.canvas, colour, mask)
        put(self.alpha, 255, mask)

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
        return darker(colour, 0.45) if paint.outline == "darker" and colour else self.ink
