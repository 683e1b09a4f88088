"""Geometry of the invented styles: polylines of a content -> polylines as a style has them -> masks.

Lengths are pixels of a picture of 128 pixels a side; masks are drawn larger and reduced, which smooths their edges.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from common.samples.invented_style import Form, Pen

SUPERSAMPLING = 8
STEP = 3.0  # longest piece of a line that is left straight by an unsteady hand


def edge_vectors(points: np.ndarray, closed: bool) -> np.ndarray:
    """From each point to the next -> (n, 2), or (n - 1, 2) for an open line."""
    return np.roll(points, -1, axis=0) - points if closed else np.diff(points, axis=0)


def simplify(points: np.ndarray, closed: bool, degrees: float) -> np.ndarray:
    """Keep a point whenever the direction has turned by this much since the last one: circles become polygons."""
    edges = edge_vectors(points, closed)
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    turns = np.abs((np.diff(angles) + np.pi) % (2 * np.pi) - np.pi)  # at points 1 to n - 2, or n - 1 where closed
    steps = np.floor(np.cumsum(turns) / np.radians(degrees) + 0.01)
    kept = np.flatnonzero(np.diff(steps, prepend=0.0)) + 1
    chosen = points[np.r_[0, kept] if closed else np.r_[0, kept, len(points) - 1]]
    return chosen if len(chosen) > 2 or not closed else points


def round_corners(points: np.ndarray, closed: bool, radius: float, cut: bool) -> np.ndarray:
    """Replace corners by arcs, or cut them off; points of a curve, where the direction turns little, stay."""
    edges = edge_vectors(points, closed)
    lengths = np.maximum(np.hypot(*edges.T), 1e-6)
    angles, ends = np.arctan2(edges[:, 1], edges[:, 0]), edges * np.minimum(radius / lengths, 0.5)[:, None]
    if closed:
        corners, before, after, turns = points, np.roll(ends, 1, 0), ends, angles - np.roll(angles, 1)
    else:
        corners, before, after, turns = points[1:-1], ends[:-1], ends[1:], np.diff(angles)
    t = np.array([0.0, 1.0] if cut else [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])[None, :, None]
    middle = corners[:, None]
    arcs = (1 - t) ** 2 * (corners - before)[:, None] + 2 * t * (1 - t) * middle + t**2 * (corners + after)[:, None]
    sharp = np.abs((turns + np.pi) % (2 * np.pi) - np.pi) > np.radians(18)
    kept = np.broadcast_to(sharp[:, None], arcs.shape[:2]).copy()
    kept[:, 0] = True
    arcs = np.where(sharp[:, None, None], arcs, middle)[kept]
    return arcs if closed else np.concatenate([points[:1], arcs, points[-1:]])


def subdivide(points: np.ndarray, closed: bool, step: float = STEP) -> np.ndarray:
    """Further points on long edges; the given points stay, without doubles."""
    edges = edge_vectors(points, closed)
    far = np.hypot(*edges.T) > 1e-3
    points = points[np.r_[True, far[: len(points) - 1]]]
    edges = edge_vectors(points, closed)
    counts = np.maximum(np.ceil(np.hypot(*edges.T) / step), 1).astype(int)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    share = ((np.arange(counts.sum()) - first) / np.repeat(counts, counts))[:, None]
    dense = np.repeat(points[: len(edges)], counts, axis=0) + share * np.repeat(edges, counts, axis=0)
    return dense if closed else np.concatenate([dense, points[-1:]])


def shake(points: np.ndarray, form: Form, phases: np.ndarray) -> np.ndarray:
    """An unsteady hand: a smooth displacement that is the same for all lines at one place. phases (2, 2, 3)"""
    waves = 2 * np.pi / 128 * form.waves * np.array([0.6, 1.0, 1.7])
    x, y = points.T
    shifts = [
        (np.sin(waves * (x + 0.4 * y)[:, None] + a) + np.sin(waves * (y - 0.3 * x)[:, None] + b)) @ [0.5, 0.35, 0.2]
        for a, b in phases
    ]
    return points + form.wobble * np.stack(shifts, 1)


def bend(points: np.ndarray, closed: bool, form: Form, phases: np.ndarray) -> np.ndarray:
    """A polyline as the style has it, with points dense enough to follow its curves."""
    if form.facet and len(points) > 3:
        points = simplify(points, closed, form.facet)
    if form.radius and len(points) > 2:
        points = round_corners(points, closed, form.radius, form.cut)
    points = subdivide(points, closed)
    if form.flare:
        x, y = (points - 64).T / 64
        points = 64 + 64 * np.stack([x * (1 - max(form.flare, 0.0) + form.flare * y * y), y], 1)
    return shake(points, form, phases) if form.wobble else points


def serifs(paths: list[np.ndarray], form: Form) -> list[np.ndarray]:
    """Bars across the free ends of lines: level ones at the ends of stems, short upright ones at the ends of arms."""
    bars = []
    for number, path in enumerate(paths):
        others = np.concatenate([np.zeros((0, 2)), *(other for index, other in enumerate(paths) if index != number)])
        for end, before in ((path[0], path[min(2, len(path) - 1)]), (path[-1], path[max(len(path) - 3, 0)])):
            if len(others) and np.hypot(*(others - end).T).min() < 2 * STEP:
                continue
            across, down = np.abs(end - before)
            half = np.array([form.serif, 0.0]) if down >= across else np.array([0.0, form.serif * 0.6])
            bars.append(np.stack([end - half, end + half]))
    return bars


class MaskPainter:
    """Draws regions and lines as masks (L, size x size, 255 inside)."""

    def __init__(self, pen: Pen, size: int, crisp: bool, random: np.random.Generator):
        self.pen, self.size, self.crisp = pen, size, crisp
        self.unit = size * SUPERSAMPLING / 128  # canvas pixels in a length of 1
        self.canvas = Image.new("L", (size * SUPERSAMPLING,) * 2)
        self.box: tuple[int, int, int, int] = (0, 0, size, size)  # of the pixels that are drawn
        self.noise: Image.Image | None = None
        if pen.rough:
            side = max(int(64 / (0.5 + pen.rough)), 8)
            values = np.clip(random.normal(128, 60, (side, side)), 0, 255).astype(np.uint8)
            noise = Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC)
            self.noise = noise.point([min(max(value, 73), 183) for value in range(256)])  # no ink far from an edge

    def region(self, paths: list[np.ndarray]) -> Image.Image:
        draw = self._start(paths, 1.0)
        for path in paths:
            draw.polygon((path * self.unit - 0.5).ravel().tolist(), fill=255)
        return self._finish()

    def lines(self, paths: list[np.ndarray], closed: bool, width: float) -> Image.Image:
        draw = self._start(paths, 2 * width + 1)
        for path in paths:
            for run in self._dashes(path, closed):
                if len(run) > 1:
                    self._line(draw, run, closed and run is path, width)
        return self._finish()

    def _start(self, paths: list[np.ndarray], margin: float) -> ImageDraw.ImageDraw:
        """An empty canvas where the paths are."""
        points = np.concatenate(paths)
        low, high = points.min(0) - margin, points.max(0) + margin
        corners = np.r_[np.floor(low * self.size / 128), np.ceil(high * self.size / 128)]
        left, top, right, bottom = np.clip(corners, 0, self.size).astype(int).tolist()
        self.box = left, top, right, bottom
        self.canvas.paste(0, self._inked)
        return ImageDraw.Draw(self.canvas)

    @property
    def _inked(self) -> tuple[int, int, int, int]:
        """The box on the canvas."""
        left, top, right, bottom = (value * SUPERSAMPLING for value in self.box)
        return left, top, right, bottom

    def _finish(self) -> Image.Image:
        mask, scale = Image.new("L", (self.size, self.size)), self.size / 128
        if self.box[0] < self.box[2] and self.box[1] < self.box[3]:
            mask.paste(self.canvas.reduce(SUPERSAMPLING, self._inked), self.box[:2])
        radius = min(max(self.pen.soften, 1.5 * self.pen.rough), 0.45 * max(self.pen.weight, self.pen.stroke))
        if radius:
            mask = mask.filter(ImageFilter.GaussianBlur(radius * scale))
            if self.noise:
                mask = ImageChops.add(mask, self.noise, offset=-128)
            mask = mask.point(
                [min(max(int((value - 110) * 2.5 * max(radius, 1) + 128), 0), 255) for value in range(256)]
            )
        return mask.point([0] * 128 + [255] * 128) if self.crisp else mask

    def _dashes(self, path: np.ndarray, closed: bool) -> Iterator[np.ndarray]:
        if not self.pen.dash:
            yield path
            return
        line = np.concatenate([path, path[:1]]) if closed else path
        lengths = np.hypot(*np.diff(line, axis=0).T)
        middles = np.cumsum(lengths) - lengths / 2
        drawn = (middles + 0.3 * self.pen.dash_period) % self.pen.dash_period > self.pen.dash * self.pen.dash_period
        changes = np.flatnonzero(np.diff(np.r_[False, drawn, False].astype(int)))
        for start, stop in changes.reshape(-1, 2):
            yield line[start : stop + 1]

    def _line(self, draw: ImageDraw.ImageDraw, path: np.ndarray, closed: bool, width: float) -> None:
        pen = self.pen
        points = np.concatenate([path, path[:1]]) if closed else path
        edges = np.diff(points, axis=0)
        lengths = np.maximum(np.hypot(*edges.T), 1e-6)
        along = edges / lengths[:, None]
        if pen.cap == "square" and not closed:
            points = points.copy()
            points[0] -= along[0] * width / 2
            points[-1] += along[-1] * width / 2
        widths = np.full(len(edges), width)
        if pen.contrast:
            angle = np.arctan2(along[:, 1], along[:, 0]) + np.radians(pen.angle)  # y points down
            widths *= np.sqrt(np.sin(angle) ** 2 + ((1 - pen.contrast) * np.cos(angle)) ** 2)
        if pen.taper and not closed:
            middles = (np.cumsum(lengths) - lengths / 2) / lengths.sum()
            widths *= 1 - pen.taper * np.abs(2 * middles - 1) ** 1.5
        points, widths = points * self.unit - 0.5, np.maximum(widths * self.unit, 1.5)
        if pen.contrast or pen.taper:
            across = np.stack([-along[:, 1], along[:, 0]], 1) * widths[:, None] / 2
            quads = np.concatenate(
                [points[:-1] + across, points[1:] + across, points[1:] - across, points[:-1] - across], 1
            )
            for quad in quads.tolist():
                draw.polygon(quad, fill=255)
        else:
            draw.line(points.ravel().tolist(), fill=255, width=round(widths[0]))
        self._joins(draw, points, along, widths, closed)

    def _joins(
        self, draw: ImageDraw.ImageDraw, points: np.ndarray, along: np.ndarray, widths: np.ndarray, closed: bool
    ) -> None:
        """Fill the wedges where edges meet, and round the ends."""
        corners = points[:-1] if closed else points[1:-1]
        before, after = (np.roll(along, 1, 0), along) if closed else (along[:-1], along[1:])
        half = np.maximum(np.roll(widths, 1), widths) / 2 if closed else np.maximum(widths[:-1], widths[1:]) / 2
        cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        cosine = (before * after).sum(1)
        open_wedge = half * np.abs(np.arctan2(cross, cosine)) > 0.8  # canvas pixels
        for index in np.flatnonzero(open_wedge):
            (x, y), radius = corners[index], half[index]
            if self.pen.join == "round" or abs(cross[index]) < 0.3:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
                continue
            side = -np.sign(cross[index]) * radius
            first, second = (np.array([-vector[1], vector[0]]) * side for vector in (before[index], after[index]))
            outer = [corners[index] + first, corners[index] + second]
            if self.pen.join == "miter" and cosine[index] > -0.6:
                outer.insert(1, corners[index] + (first + second) / (1 + cosine[index]))
            draw.polygon(np.concatenate([corners[index], *outer]).tolist(), fill=255)
        if self.pen.cap == "round" and not closed:
            for (x, y), width in ((points[0], widths[0]), (points[-1], widths[-1])):
                radius = width / 2
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
