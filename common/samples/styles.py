"""How the sample data is drawn: one function per style, from the parts of a scene to a picture.

scene.parts() -> Canvas (which part is at each pixel, colour of each part) -> texture, strokes, edges -> PIL image

Every style draws every scene and keeps the colours of its objects, so that captions stay true and a histogram of
colours does not give the style away: what differs is stroke, texture and edge. Each picture has its own slight tint.
All is drawn on a canvas of twice the size and then reduced, which smooths the edges.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from common.samples.shapes import Part

INK = np.array([38, 34, 44], dtype=np.float32)
DARK_GROUNDS = np.array([[30, 34, 52], [28, 44, 42], [44, 32, 52], [24, 46, 92]], dtype=np.float32)


class Drawable(Protocol):
    def parts(self) -> list[Part]: ...


class Canvas:
    """ids (W, W) uint8: the part seen at each pixel, back to front; colours (n, 3) float32, owners (n,).

    Parts of one object with the same colour share an id, so no line is drawn between them.
    """

    def __init__(self, scene: Drawable, size: int, random: np.random.Generator):
        self.size, self.width, self.random = size, 2 * size, random
        image = Image.new("L", (self.width, self.width))
        draw = ImageDraw.Draw(image)
        numbers: dict[tuple, int] = {}
        for points, colour, owner in scene.parts():
            number = numbers.setdefault((owner, colour), len(numbers))
            draw.polygon((points * self.width - 0.5).ravel().tolist(), fill=number)
        self.ids = np.asarray(image)
        self.owners = np.array([owner for owner, _ in numbers])
        tint = 1 + random.uniform(-0.05, 0.05, 3)
        self.colours = np.clip(np.array([colour for _, colour in numbers]) * tint, 0, 255).astype(np.float32)
        self.y, self.x = np.mgrid[: self.width, : self.width].astype(np.float32) / self.width  # (W, W) in [0, 1)

    def flat(self, ids: np.ndarray | None = None) -> np.ndarray:
        """-> (W, W, 3) float32 in [0, 255]"""
        return self.colours[self.ids if ids is None else ids]

    def objects(self) -> np.ndarray:
        """-> (W, W) bool, true where an object is seen"""
        return (self.owners >= 0)[self.ids]

    def noise(self, cells: int) -> np.ndarray:
        """Smooth noise with about `cells` hills a side -> (W, W) float32, mean 0, deviation about 0.7."""
        coarse = Image.fromarray(self.random.standard_normal((cells, cells), dtype=np.float32))
        return np.asarray(coarse.resize((self.width, self.width), Image.Resampling.BICUBIC))

    def grain(self) -> np.ndarray:
        """-> (W, W) float32, a value in [0, 1) for each pixel of the finished picture"""
        return self.random.random((self.size, self.size), dtype=np.float32).repeat(2, 0).repeat(2, 1)

    def wobble(self, reach: float, cells: int) -> np.ndarray:
        """ids as if drawn by an unsteady hand; `reach` is in pixels of the finished picture."""
        across, down = (np.clip(self.noise(cells), -1.5, 1.5) * reach * 2 for _ in range(2))
        rows = np.clip(self.y * self.width + down, 0, self.width - 1).astype(np.int32)
        columns = np.clip(self.x * self.width + across, 0, self.width - 1).astype(np.int32)
        return self.ids[rows, columns]

    def lines(self, ids: np.ndarray, thickness: int) -> np.ndarray:
        """Where parts meet -> (W, W) bool; `thickness` (odd, canvas pixels) for objects, thin in the background."""
        return edges(np.where((self.owners >= 0)[ids], ids, 255), thickness) | edges(ids, 1)

    def blocks(self, side: int) -> np.ndarray:
        """ids in the middle of each square of `side` canvas pixels -> (n, n); the last squares may be cut"""
        middles = np.minimum(np.arange(0, self.width, side) + side // 2, self.width - 1)
        return self.ids[np.ix_(middles, middles)]

    def finish(self, pixels: np.ndarray) -> Image.Image:
        """(W, W, 3) in [0, 255] -> RGB image of the wanted size"""
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).reduce(2)


def edges(ids: np.ndarray, thickness: int = 3) -> np.ndarray:
    """Where parts meet -> (W, W) bool; the lines are `thickness` (odd) canvas pixels wide."""
    found = np.zeros(ids.shape, dtype=np.uint8)
    found[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    found[1:] |= ids[1:] != ids[:-1]
    if thickness == 1:  # MaxFilter(1) ends the process with a division by zero (Pillow 12.3)
        return found > 0
    return np.asarray(Image.fromarray(found).filter(ImageFilter.MaxFilter(thickness))) > 0


def blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of (W, W) or (W, W, 3) in [0, 255] -> float32"""
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)


def mix(first, second, share: np.ndarray) -> np.ndarray:
    """share (W, W) in [0, 1] of the second picture or colour"""
    share = np.asarray(share, dtype=np.float32)[..., None]
    return first + (second - first) * share


def cells(canvas: Canvas, spacing: float, jitter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voronoi cells of a shaken grid -> number of the cell, canvas pixels to its middle and to its border."""
    count = int(np.ceil(canvas.width / spacing)) + 2
    shake = canvas.random.uniform(-jitter, jitter, (2, count, count)).astype(np.float32)
    row, column = (canvas.y * canvas.width / spacing), (canvas.x * canvas.width / spacing)
    rows, columns = row.astype(np.int32) + 1, column.astype(np.int32) + 1
    best = np.full(row.shape, np.inf, dtype=np.float32)
    second, number = best.copy(), np.zeros(row.shape, dtype=np.int32)
    for near_row in (rows - 1, rows, rows + 1):
        for near_column in (columns - 1, columns, columns + 1):
            place = near_row * count + near_column
            down = row - (near_row - 0.5 + shake[0].ravel()[place])
            across = column - (near_column - 0.5 + shake[1].ravel()[place])
            distance = down * down + across * across
            closer = distance < best
            second = np.where(closer, best, np.minimum(second, distance))
            number = np.where(closer, place, number)
            best = np.where(closer, distance, best)
    best, second = np.sqrt(best), np.sqrt(second)
    return number, best * spacing, (second - best) * spacing / 2


def sample_cells(canvas: Canvas, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each cell takes the part at its middle -> ids (W, W), and a random value in [-1, 1] per cell (W, W)."""
    flat = number.ravel()
    count = np.maximum(np.bincount(flat), 1)
    sums = (np.bincount(flat, weights=axis.ravel()) for axis in (canvas.y, canvas.x))
    rows, columns = ((total / count * canvas.width).astype(np.int32) for total in sums)
    values = canvas.random.uniform(-1, 1, len(count)).astype(np.float32)
    return canvas.ids[rows, columns][number], values[number]


def stripes(canvas: Canvas, angle: np.ndarray | float, period: float, waves: np.ndarray | float = 0) -> np.ndarray:
    """Parallel lines at an angle in radians -> (W, W) in [0, 1], 0 in the middle of a line, 1 half way to the next."""
    along = (canvas.x * np.cos(angle) + canvas.y * np.sin(angle)) * canvas.width / period + waves
    return np.abs(2 * (along - np.floor(along)) - 1)


def draw_flat(canvas: Canvas) -> np.ndarray:
    return canvas.flat()


def draw_ink_outline(canvas: Canvas) -> np.ndarray:
    """Wobbly pen lines of changing weight over washes of colour that miss them a little."""
    fill = np.roll(canvas.wobble(1.0, 8), (2, 3), (0, 1))
    pen = blur(canvas.lines(canvas.wobble(0.6, 12), 3) * 255, 1.2) / 255
    light = mix(canvas.flat(fill), 255.0, np.full(fill.shape, 0.15))
    return mix(light, INK, pen > np.clip(0.36 + 0.14 * canvas.noise(20), 0.2, 0.6))


def draw_watercolour(canvas: Canvas) -> np.ndarray:
    """Pigment pools at the edge of each wash, drifts inside it, and settles into the grain of the paper."""
    ids = canvas.wobble(1.0, 24)
    rim = blur(edges(ids, 3) * 255, 2) / 255
    pigment = 1 - blur(canvas.flat(ids), 1.5) / 255
    density = 0.72 + 0.24 * canvas.noise(7) + 0.10 * canvas.noise(40) + 0.55 * rim + 0.16 * (canvas.grain() - 0.5)
    paper = np.array([253, 250, 243], dtype=np.float32)
    return paper * (1 - pigment * np.clip(density, 0.4, 1.5)[..., None])


def draw_pointillism(canvas: Canvas) -> np.ndarray:
    """Separate dots of broken colour on bare paper."""
    number, middle, _ = cells(canvas, 6.0, 0.3)
    ids, value = sample_cells(canvas, number)
    dots = canvas.flat(ids)
    shifts = canvas.random.normal(0, 20, (int(number.max()) + 1, 3)).astype(np.float32)
    return mix(np.array([250, 246, 236], dtype=np.float32), dots + shifts[number], middle < 2.9 + 0.4 * value)


def draw_pixel_art(canvas: Canvas) -> np.ndarray:
    """Large square pixels, few levels, dithered shadows and a dark outline around objects."""
    block = max(canvas.width // 32, 1)
    ids = canvas.blocks(block)
    small = canvas.colours[ids]
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.5
    tiles = np.tile(bayer, (ids.shape[0] // 4 + 1,) * 2)[: ids.shape[0], : ids.shape[1], None]
    down = np.linspace(1.03, 0.95, ids.shape[0])[:, None, None]
    small = np.round((small * down + tiles * 16) / 24) * 24
    inside = (canvas.owners >= 0)[ids]
    rim = inside & ~np.asarray(Image.fromarray(inside.astype(np.uint8)).filter(ImageFilter.MinFilter(3))).astype(bool)
    small = np.where(rim[..., None], small * 0.72, small)
    return small.repeat(block, 0).repeat(block, 1)[: canvas.width, : canvas.width]


def draw_halftone(canvas: Canvas) -> np.ndarray:
    """Three rotated screens of cyan, magenta and yellow dots."""
    ink = 1 - blur(canvas.flat(), 1) / 255
    pixels = np.full(ink.shape, 255, dtype=np.float32)
    colours = np.array([[20, 165, 225], [232, 40, 135], [255, 222, 20]], dtype=np.float32) / 255
    for channel, degrees in enumerate((15, 75, 0)):
        angle = np.radians(degrees + canvas.random.uniform(-3, 3))
        across, down = (stripes(canvas, turned, 8.0) for turned in (angle, angle + np.pi / 2))
        screen = (np.cos(np.pi * across) + np.cos(np.pi * down)) / 4 + 0.5  # 1 in the middle of a dot
        pixels *= np.where((screen > 1 - ink[..., channel] * 1.05)[..., None], colours[channel], 1)
    return pixels


def draw_pencil_hatching(canvas: Canvas) -> np.ndarray:
    """Coloured pencils: each part hatched in its own direction, pressed harder where it is dark."""
    ids = canvas.wobble(0.6, 16)
    colours = 255 - (255 - canvas.flat(ids)) * 1.25
    dark = 1 - colours.mean(2) / 255
    angle = canvas.random.uniform(0.5, 1.1) + (ids.astype(np.float32) * 0.5) % 1.6
    waves, grain = 0.4 * canvas.noise(10), canvas.grain()
    hatch = stripes(canvas, angle, 6.0, waves) + 0.5 * (grain - 0.5) < 0.25 + 0.9 * dark
    cross = stripes(canvas, angle + 1.3, 7.0, waves) + 0.5 * (grain - 0.5) < dark - 0.25
    pixels = mix(np.array([252, 250, 244], dtype=np.float32), colours, 0.85 * hatch)
    pixels = mix(pixels, colours * 0.7, 0.6 * cross)
    return mix(pixels, INK + 30, (canvas.lines(ids, 3) & (grain > 0.3)) * 0.7)


def draw_mosaic(canvas: Canvas) -> np.ndarray:
    """Square stones, each of one colour and a little apart in tone, set in pale mortar."""
    number, _, border = cells(canvas, 8.6, 0.12)
    ids, value = sample_cells(canvas, number)
    light = 1 + 0.10 * value + 0.06 * np.clip(canvas.noise(60), -1, 1)
    return mix(canvas.flat(ids) * light[..., None], np.array([226, 221, 210], dtype=np.float32), border < 0.9)


def draw_neon(canvas: Canvas) -> np.ndarray:
    """Glowing tubes along every edge, on a dark wall."""
    ids = np.asarray(Image.fromarray(canvas.ids).filter(ImageFilter.MaxFilter(3)))
    tubes = edges(canvas.ids, 3)[..., None] * canvas.flat(ids)
    tubes *= np.where(canvas.owners >= 0, 1.0, 0.25)[ids][..., None]
    ground = canvas.random.choice(DARK_GROUNDS) * 0.6
    glow = blur(tubes, 2) * 0.7 + blur(tubes, 9) * 1.5
    light = ground + glow + tubes * 0.8
    light *= 255 / np.maximum(light.max(2, keepdims=True), 255)  # keeps the hue where clipping would turn it white
    return light + 45 * (tubes.max(2, keepdims=True) > 100)


def draw_woodcut(canvas: Canvas) -> np.ndarray:
    """Heavy black key lines, and black left between the gouges where it is dark."""
    ids = canvas.wobble(0.7, 26)
    colours = canvas.flat(ids)
    waves = 1.1 * canvas.noise(5) + 0.12 * canvas.noise(50)
    depth = 0.04 + 0.36 * (1 - colours.mean(2) / 255) + 0.14 * canvas.y
    gouges = stripes(canvas, 1.45, 8.0, waves) < depth
    paper = np.array([248, 238, 214], dtype=np.float32) / 255
    return mix(colours * paper, INK * 0.8, gouges | canvas.lines(ids, 3))


def draw_oil_paint(canvas: Canvas) -> np.ndarray:
    """Short thick strokes that follow a swirl, finest at contours; light from the upper left shows their relief."""
    random, width = canvas.random, canvas.width
    image, relief = Image.fromarray(blur(canvas.flat(), 3).astype(np.uint8)), Image.new("L", (width, width), 128)
    paint, lift = ImageDraw.Draw(image), ImageDraw.Draw(relief)
    swirl = canvas.noise(4) * 1.5
    everywhere, contours = np.arange(width * width), np.flatnonzero(blur(edges(canvas.ids) * 255, 4) > 12)
    for length, thickness, count, region in (
        (0.08, 0.034, 450, everywhere),
        (0.05, 0.022, 500, everywhere),
        (0.026, 0.015, 1200, contours),
    ):
        places = random.choice(region, count) if len(region) else region
        rows, columns = np.divmod(places, width)
        angles = swirl[rows, columns] + random.normal(0, 0.25, len(places))
        half = length * width / 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
        middles = np.stack([columns, rows], 1)
        ends = np.concatenate([middles - half, middles + half], 1)
        colours = canvas.colours[canvas.ids[rows, columns]] * random.normal(1, 0.07, (len(places), 1))
        colours = np.clip(colours + random.normal(0, 5, colours.shape), 0, 255).astype(int)
        heights = random.integers(60, 200, len(places))
        for line, colour, height in zip(ends.tolist(), colours.tolist(), heights.tolist()):
            paint.line(line, fill=tuple(colour), width=round(thickness * width))
            lift.line(line, fill=height, width=round(thickness * width))
    heights = blur(np.asarray(relief), 1)
    light = np.clip(heights - np.roll(heights, (2, 2), (0, 1)), -60, 60)
    return np.asarray(image, dtype=np.float32) + light[..., None] * 0.5


def draw_stained_glass(canvas: Canvas) -> np.ndarray:
    """Panes between black lead: the parts, cut once more by large cells; each pane has its own depth of colour."""
    number, _, border = cells(canvas, 44.0, 0.42)
    panes = (number.astype(np.int64) * 31 + canvas.ids * 17) % 97
    depth = canvas.random.uniform(0.78, 1.12, 97).astype(np.float32)[panes]
    colours = canvas.flat()
    grey = colours.mean(2, keepdims=True)
    glass = (grey + (colours - grey) * 1.35) * (depth + 0.07 * canvas.noise(30))[..., None]
    lead = (border < 2.0) | edges(canvas.ids, 3)
    light = blur(lead * 255, 3) / 255
    return mix(glass * (1.05 - 0.35 * light[..., None]), INK * 0.7, lead)


def draw_chalk(canvas: Canvas) -> np.ndarray:
    """Dusty chalk on a dark board: rubbed colour inside, grainy lines around."""
    ids = canvas.wobble(0.8, 20)
    colours = 45 + canvas.flat(ids) * 0.88
    grain = canvas.grain()
    inside = (canvas.owners >= 0)[ids]
    rubbed = np.where(inside, 0.95, 0.10) * (1 - 0.55 * stripes(canvas, 0.8, 9.0, 0.5 * canvas.noise(9)))
    board = canvas.random.choice(DARK_GROUNDS) + 8 * canvas.noise(5)[..., None]
    pixels = mix(board, colours, rubbed * (0.5 + 0.5 * grain))
    strokes = edges(ids, 5) * np.where(inside, 1.0, 0.45) * (grain > 0.25) * (0.5 + 0.5 * grain)
    return mix(pixels, colours + 20, strokes)


def draw_paper_cut(canvas: Canvas) -> np.ndarray:
    """Sheets of paper laid on each other: soft shadows to the lower right, bright cut edges to the upper left."""
    ids = canvas.ids.astype(np.int16)
    shadow = np.zeros(ids.shape, dtype=bool)
    for step in (2, 4, 6, 8):
        shadow |= np.roll(ids, (step, step), (0, 1)) > ids
    shadow[:8], shadow[:, :8] = False, False
    cut = np.roll(ids, (2, 2), (0, 1)) < ids
    fibres = 5 * canvas.noise(80) + 4 * canvas.noise(canvas.size)
    pixels = canvas.flat() * (1 - 0.42 * blur(shadow * 255, 3)[..., None] / 255) + fibres[..., None]
    return mix(pixels, 255.0, cut * 0.4)


def draw_cross_stitch(canvas: Canvas) -> np.ndarray:
    """Crosses of thread on linen."""
    pitch = max(canvas.width // 32, 2)
    ids = canvas.blocks(pitch).repeat(pitch, 0).repeat(pitch, 1)[: canvas.width, : canvas.width]
    across, down = (axis * canvas.width % pitch / pitch - 0.5 for axis in (canvas.x, canvas.y))
    over, under = np.abs(across + down), np.abs(across - down)
    threads = canvas.flat(ids) * (1 + 0.05 * canvas.noise(32))[..., None]
    linen = np.array([196, 184, 160], dtype=np.float32) * (0.9 + 0.1 * canvas.grain())[..., None]
    pixels = mix(linen, threads * 0.82, under < 0.27)
    return mix(pixels, threads * (1.12 - 0.8 * over[..., None]), over < 0.27)


def _in_style(draw: Callable[[Canvas], np.ndarray]) -> Callable[[Drawable, int, np.random.Generator], Image.Image]:
    def render(scene: Drawable, size: int, random: np.random.Generator) -> Image.Image:
        canvas = Canvas(scene, size, random)
        return canvas.finish(draw(canvas))

    return render


STYLES = {
    function.__name__.removeprefix("draw_"): _in_style(function)
    for function in (
        draw_flat,
        draw_ink_outline,
        draw_watercolour,
        draw_pointillism,
        draw_pixel_art,
        draw_halftone,
        draw_pencil_hatching,
        draw_mosaic,
        draw_neon,
        draw_woodcut,
        draw_oil_paint,
        draw_stained_glass,
        draw_chalk,
        draw_paper_cut,
        draw_cross_stitch,
    )
}
