"""The canvas that a scene is drawn on, and the textures that the styles share.

scene.parts() -> Canvas: the part at each pixel, the colour of each part

The canvas has twice the size of the finished picture, so reducing it smooths the edges.
"""

from collections.abc import Iterable
from itertools import product
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from common.samples.shapes import Part


class Drawable(Protocol):
    def parts(self) -> Iterable[Part]: ...


class Canvas:
    """ids (W, W) uint8: the visible part at each pixel; colours (n, 3) float32, owners (n,).

    Parts of one object with the same colour share an id, so no line is drawn between them.
    """

    def __init__(self, scene: Drawable, size: int, random: np.random.Generator):
        self.size, self.width, self.random = size, 2 * size, random
        image = Image.new("L", (self.width, self.width))
        draw = ImageDraw.Draw(image)
        numbers: dict[tuple, int] = {}
        for points, colour, owner in scene.parts():
            outline = (points * self.width - 0.5).ravel().tolist()
            draw.polygon(outline, fill=numbers.setdefault((owner, colour), len(numbers)))
        self.ids = np.asarray(image)
        self.owners = np.array([owner for owner, _ in numbers])
        tint = 1 + random.uniform(-0.05, 0.05, 3)
        self.colours = np.clip(np.array([colour for _, colour in numbers]) * tint, 0, 255).astype(np.float32)
        self.y, self.x = np.mgrid[: self.width, : self.width].astype(np.float32) / self.width  # (W, W) in [0, 1)

    def flat(self, ids: np.ndarray | None = None) -> np.ndarray:
        """-> (W, W, 3) float32 in [0, 255]"""
        return self.colours[self.ids if ids is None else ids]

    def objects(self, ids: np.ndarray | None = None) -> np.ndarray:
        """-> (W, W) bool, true where an object is visible, false on the background"""
        return (self.owners >= 0)[self.ids if ids is None else ids]

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise with about `cells` hills a side -> (W, W) float32, mean 0, deviation about 0.7."""
        coarse = Image.fromarray(self.random.standard_normal((cells, cells), dtype=np.float32))
        return np.asarray(coarse.resize((self.width, self.width), Image.Resampling.BICUBIC))

    def grain(self) -> np.ndarray:
        """A value in [0, 1) for each pixel of the finished picture -> (W, W) float32."""
        return self.random.random((self.size, self.size), dtype=np.float32).repeat(2, 0).repeat(2, 1)

    def wobble(self, reach: float, cells: int) -> np.ndarray:
        """ids as if drawn by an unsteady hand; `reach` is in pixels of the finished picture."""
        columns, rows = (
            axis * self.width + np.clip(self.noise(cells), -1.5, 1.5) * reach * 2 for axis in (self.x, self.y)
        )
        return self.ids[tuple(np.clip(axis, 0, self.width - 1).astype(np.int32) for axis in (rows, columns))]

    def lines(self, ids: np.ndarray, thickness: int) -> np.ndarray:
        """Where parts meet -> (W, W) bool; `thickness` (odd, canvas pixels) for objects, thin in the background."""
        return edges(np.where(self.objects(ids), ids, 255), thickness) | edges(ids, 1)

    def blocks(self, side: int) -> np.ndarray:
        """ids in the middle of each square of `side` canvas pixels -> (n, n); the last squares may be cut"""
        middles = np.minimum(np.arange(0, self.width, side) + side // 2, self.width - 1)
        return self.ids[np.ix_(middles, middles)]

    def finish(self, pixels: np.ndarray) -> Image.Image:
        """(W, W, 3) in [0, 255] -> RGB image of the requested size"""
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).reduce(2)


def edges(ids: np.ndarray, thickness: int = 3) -> np.ndarray:
    """Where parts meet -> (W, W) bool; the lines are `thickness` (odd) canvas pixels wide."""
    borders = np.zeros(ids.shape, dtype=np.uint8)
    borders[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    borders[1:] |= ids[1:] != ids[:-1]
    if thickness == 1:  # MaxFilter(1) ends the process with a division by zero (Pillow 12.3)
        return borders > 0
    return np.asarray(Image.fromarray(borders).filter(ImageFilter.MaxFilter(thickness))) > 0


def blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of (W, W) or (W, W, 3) in [0, 255] -> float32"""
    blurred = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, dtype=np.float32)


def mix(first: np.ndarray, second: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    """share (W, W) in [0, 1] of the second picture or colour"""
    share = np.asarray(share, dtype=np.float32)[..., None]
    return first + (second - first) * share


def cells(canvas: Canvas, spacing: float, jitter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voronoi cells of a jittered grid -> number of the cell, canvas pixels to its centre and to its border."""
    count = int(np.ceil(canvas.width / spacing)) + 2
    shift = canvas.random.uniform(-jitter, jitter, (2, count, count)).astype(np.float32)
    row, column = (canvas.y * canvas.width / spacing), (canvas.x * canvas.width / spacing)
    rows, columns = row.astype(np.int32) + 1, column.astype(np.int32) + 1
    best = np.full(row.shape, np.inf, dtype=np.float32)
    second, number = best.copy(), np.zeros(row.shape, dtype=np.int32)
    for near_row, near_column in product((rows - 1, rows, rows + 1), (columns - 1, columns, columns + 1)):
        cell = near_row * count + near_column
        down = row - (near_row - 0.5 + shift[0].ravel()[cell])
        across = column - (near_column - 0.5 + shift[1].ravel()[cell])
        distance = down * down + across * across
        closer = distance < best
        second = np.where(closer, best, np.minimum(second, distance))
        number, best = np.where(closer, cell, number), np.where(closer, distance, best)
    best, second = np.sqrt(best), np.sqrt(second)
    return number, best * spacing, (second - best) * spacing / 2


def sample_cells(canvas: Canvas, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each cell takes the part at its centre -> ids (W, W), and a random value in [-1, 1] per cell (W, W)."""
    flat = number.ravel()
    count = np.maximum(np.bincount(flat), 1)
    rows, columns = (
        (np.bincount(flat, weights=axis.ravel()) / count * canvas.width).astype(np.int32)
        for axis in (canvas.y, canvas.x)
    )
    return canvas.ids[rows, columns][number], canvas.random.uniform(-1, 1, len(count)).astype(np.float32)[number]


def stripes(canvas: Canvas, angle: np.ndarray | float, period: float, waves: np.ndarray | float = 0) -> np.ndarray:
    """Parallel lines at an angle in radians -> (W, W) in [0, 1], 0 in the middle of a line, 1 half way to the next."""
    along = (canvas.x * np.cos(angle) + canvas.y * np.sin(angle)) * canvas.width / period + waves
    return np.abs(2 * (along - np.floor(along)) - 1)
