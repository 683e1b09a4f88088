"""The styles of the sample data: one function each, from a canvas to pixels.

scene.parts() -> Canvas -> texture, strokes, edges -> PIL image

Every style can draw every scene and keeps the colours of its objects, so captions stay true and a colour histogram does
not reveal the style: styles differ in stroke, texture and edge. Each picture has its own slight tint.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from common.samples.canvas import Canvas, Drawable, blur, cells, edges, mix, sample_cells, stripes

INK = np.array([38, 34, 44], dtype=np.float32)
DARK_GROUNDS = np.array([[30, 34, 52], [28, 44, 42], [44, 32, 52], [24, 46, 92]], dtype=np.float32)
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.5


def colour(red: int, green: int, blue: int) -> np.ndarray:
    return np.array([red, green, blue], dtype=np.float32)


def draw_flat(canvas: Canvas) -> np.ndarray:
    return canvas.flat()


def draw_ink_outline(canvas: Canvas) -> np.ndarray:
    """Wobbly pen lines of changing weight over washes of colour that miss them a little."""
    fill = np.roll(canvas.wobble(1.0, 8), (2, 3), (0, 1))
    pen = blur(canvas.lines(canvas.wobble(0.6, 12), 3) * 255, 1.2) / 255
    washes = mix(canvas.flat(fill), 255.0, np.full(fill.shape, 0.15))
    return mix(washes, INK, pen > np.clip(0.36 + 0.14 * canvas.noise(20), 0.2, 0.6))


def draw_watercolour(canvas: Canvas) -> np.ndarray:
    """Pigment pools at the edge of each wash, drifts inside it, and settles into the grain of the paper."""
    ids = canvas.wobble(1.0, 24)
    rim = blur(edges(ids, 3) * 255, 2) / 255
    pigment = 1 - blur(canvas.flat(ids), 1.5) / 255
    density = 0.72 + 0.24 * canvas.noise(7) + 0.10 * canvas.noise(40) + 0.55 * rim + 0.16 * (canvas.grain() - 0.5)
    return colour(253, 250, 243) * (1 - pigment * np.clip(density, 0.4, 1.5)[..., None])


def draw_pointillism(canvas: Canvas) -> np.ndarray:
    """Separate dots of broken colour on bare paper."""
    number, middle, _ = cells(canvas, 6.0, 0.3)
    ids, value = sample_cells(canvas, number)
    shifts = canvas.random.normal(0, 20, (int(number.max()) + 1, 3)).astype(np.float32)
    return mix(colour(250, 246, 236), canvas.flat(ids) + shifts[number], middle < 2.9 + 0.4 * value)


def draw_pixel_art(canvas: Canvas) -> np.ndarray:
    """Large square pixels, few levels, dithered shadows and a dark outline around objects."""
    block = max(canvas.width // 32, 1)
    ids = canvas.blocks(block)
    tiles = np.tile(BAYER, (ids.shape[0] // 4 + 1,) * 2)[: ids.shape[0], : ids.shape[1], None]
    darkening = np.linspace(1.03, 0.95, ids.shape[0])[:, None, None]
    small = np.round((canvas.flat(ids) * darkening + tiles * 16) / 24) * 24
    inside = canvas.objects(ids)
    rim = inside & ~np.asarray(Image.fromarray(inside.astype(np.uint8)).filter(ImageFilter.MinFilter(3))).astype(bool)
    return _enlarge(np.where(rim[..., None], small * 0.72, small), block, canvas.width)


def draw_halftone(canvas: Canvas) -> np.ndarray:
    """Three rotated screens of cyan, magenta and yellow dots."""
    ink = 1 - blur(canvas.flat(), 1) / 255
    pixels = np.full(ink.shape, 255, dtype=np.float32)
    screens = ((15, colour(20, 165, 225)), (75, colour(232, 40, 135)), (0, colour(255, 222, 20)))
    for channel, (degrees, tint) in enumerate(screens):
        angle = np.radians(degrees + canvas.random.uniform(-3, 3))
        across, down = (stripes(canvas, turned, 8.0) for turned in (angle, angle + np.pi / 2))
        screen = (np.cos(np.pi * across) + np.cos(np.pi * down)) / 4 + 0.5  # 1 in the middle of a dot
        pixels *= np.where((screen > 1 - ink[..., channel] * 1.05)[..., None], tint / 255, 1)
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
    pixels = mix(mix(colour(252, 250, 244), colours, 0.85 * hatch), colours * 0.7, 0.6 * cross)
    return mix(pixels, INK + 30, (canvas.lines(ids, 3) & (grain > 0.3)) * 0.7)


def draw_mosaic(canvas: Canvas) -> np.ndarray:
    """Square stones, each of one colour and a little apart in tone, set in pale mortar."""
    number, _, border = cells(canvas, 8.6, 0.12)
    ids, value = sample_cells(canvas, number)
    light = 1 + 0.10 * value + 0.06 * np.clip(canvas.noise(60), -1, 1)
    return mix(canvas.flat(ids) * light[..., None], colour(226, 221, 210), border < 0.9)


def draw_neon(canvas: Canvas) -> np.ndarray:
    """Glowing tubes along every edge, on a dark wall."""
    ids = np.asarray(Image.fromarray(canvas.ids).filter(ImageFilter.MaxFilter(3)))
    tubes = edges(canvas.ids, 3)[..., None] * canvas.flat(ids)
    tubes *= np.where(canvas.owners >= 0, 1.0, 0.25)[ids][..., None]
    glow = blur(tubes, 2) * 0.7 + blur(tubes, 9) * 1.5
    light = canvas.random.choice(DARK_GROUNDS) * 0.6 + glow + tubes * 0.8
    light *= 255 / np.maximum(light.max(2, keepdims=True), 255)  # keeps the hue where clipping would turn it white
    return light + 45 * (tubes.max(2, keepdims=True) > 100)


def draw_woodcut(canvas: Canvas) -> np.ndarray:
    """Heavy black key lines, and black left between the gouges where it is dark."""
    ids = canvas.wobble(0.7, 26)
    colours = canvas.flat(ids)
    waves = 1.1 * canvas.noise(5) + 0.12 * canvas.noise(50)
    gouges = stripes(canvas, 1.45, 8.0, waves) < 0.04 + 0.36 * (1 - colours.mean(2) / 255) + 0.14 * canvas.y
    return mix(colours * (colour(248, 238, 214) / 255), INK * 0.8, gouges | canvas.lines(ids, 3))


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
        rows, columns = np.divmod(random.choice(region, count) if len(region) else region, width)
        angles = swirl[rows, columns] + random.normal(0, 0.25, len(rows))
        half = length * width / 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
        middles = np.stack([columns, rows], 1)
        ends = np.concatenate([middles - half, middles + half], 1)
        colours = canvas.colours[canvas.ids[rows, columns]] * random.normal(1, 0.07, (len(rows), 1))
        colours = np.clip(colours + random.normal(0, 5, colours.shape), 0, 255).astype(int)
        heights = random.integers(60, 200, len(rows))
        for line, pigment, height in zip(ends.tolist(), colours.tolist(), heights.tolist()):
            paint.line(line, fill=tuple(pigment), width=round(thickness * width))
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
    return mix(glass * (1.05 - 0.35 * (blur(lead * 255, 3) / 255)[..., None]), INK * 0.7, lead)


def draw_chalk(canvas: Canvas) -> np.ndarray:
    """Dusty chalk on a dark board: rubbed colour inside, grainy lines around."""
    ids = canvas.wobble(0.8, 20)
    colours, inside, grain = 45 + canvas.flat(ids) * 0.88, canvas.objects(ids), canvas.grain()
    rubbed = np.where(inside, 0.95, 0.10) * (1 - 0.55 * stripes(canvas, 0.8, 9.0, 0.5 * canvas.noise(9)))
    board = canvas.random.choice(DARK_GROUNDS) + 8 * canvas.noise(5)[..., None]
    pixels = mix(board, colours, rubbed * (0.5 + 0.5 * grain))
    strokes = edges(ids, 5) * np.where(inside, 1.0, 0.45) * (grain > 0.25) * (0.5 + 0.5 * grain)
    return mix(pixels, colours + 20, strokes)


def draw_paper_cut(canvas: Canvas) -> np.ndarray:
    """Sheets of paper laid on each other: soft shadows to the lower right, bright cut edges to the upper left."""
    ids = canvas.ids
    shadow = np.any([np.roll(ids, (step, step), (0, 1)) > ids for step in (2, 4, 6, 8)], axis=0)
    shadow[:8], shadow[:, :8] = False, False
    cut = np.roll(ids, (2, 2), (0, 1)) < ids
    fibres = 5 * canvas.noise(80) + 4 * canvas.noise(canvas.size)
    pixels = canvas.flat() * (1 - 0.42 * blur(shadow * 255, 3)[..., None] / 255) + fibres[..., None]
    return mix(pixels, 255.0, cut * 0.4)


def draw_cross_stitch(canvas: Canvas) -> np.ndarray:
    """Crosses of thread on linen."""
    pitch = max(canvas.width // 32, 2)
    across, down = (axis * canvas.width % pitch / pitch - 0.5 for axis in (canvas.x, canvas.y))
    over, under = np.abs(across + down), np.abs(across - down)
    colours = canvas.flat(_enlarge(canvas.blocks(pitch), pitch, canvas.width))
    threads = colours * (1 + 0.05 * canvas.noise(32))[..., None]
    linen = colour(196, 184, 160) * (0.9 + 0.1 * canvas.grain())[..., None]
    return mix(mix(linen, threads * 0.82, under < 0.27), threads * (1.12 - 0.8 * over[..., None]), over < 0.27)


def _enlarge(blocks: np.ndarray, side: int, width: int) -> np.ndarray:
    """Each value as a square of `side` canvas pixels -> (width, width, ...)"""
    return blocks.repeat(side, 0).repeat(side, 1)[:width, :width]


def _render(
    draw: Callable[[Canvas], np.ndarray], scene: Drawable, size: int, random: np.random.Generator
) -> Image.Image:
    canvas = Canvas(scene, size, random)
    return canvas.finish(draw(canvas))


STYLES = {  # name -> (scene, size, random) -> picture
    function.__name__.removeprefix("draw_"): partial(_render, function)
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
