"""Image augmentation as a pure function of (seed, epoch, index).

pixels (H, W, 3) uint8 -> random crop, flip, invented style, grey -> (S, S, 3) uint8

No global random state: the same key gives the same pixels in any worker, process or resumed run.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

RESAMPLING = Image.Resampling.BICUBIC


def square(pixels: np.ndarray, size: int, grey: bool = False) -> np.ndarray:
    """The largest centred square of an image, scaled to `size` pixels: the input of validation and tools."""
    image = Image.fromarray(pixels)
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize((size, size), RESAMPLING, box=(left, top, left + side, top + side))
    return np.asarray(_grey(image) if grey else image)


@dataclass(frozen=True)
class SampleKey:
    """A view of an image, as a batch sampler asks a dataset for it."""

    epoch: int
    index: int
    style_seed: int = 0  # of the invented style to redraw it in; 0 = its own style
    grey: bool = False  # without colours


@dataclass(frozen=True)
class Augmentation:
    """Random views that keep the style: a crop of at least `crop_scale` of the area, and a flip."""

    crop_scale: float = 0.8
    flip_prob: float = 0.5
    seed: int = 0

    def __call__(self, pixels: np.ndarray, size: int, view: SampleKey) -> np.ndarray:
        random = np.random.default_rng([self.seed, view.epoch, view.index, view.style_seed])
        image = Image.fromarray(pixels)
        width, height = image.size
        side = min(width, height) * np.sqrt(random.uniform(self.crop_scale, 1))
        aspect = np.exp(random.uniform(-0.15, 0.15)) if self.crop_scale < 1 else 1.0
        crop_width, crop_height = min(width, side * aspect), min(height, side / aspect)
        left, top = random.uniform(0, width - crop_width), random.uniform(0, height - crop_height)
        image = image.resize((size, size), RESAMPLING, box=(left, top, left + crop_width, top + crop_height))
        if random.random() < self.flip_prob:
            image = ImageOps.mirror(image)
        if view.style_seed:
            image = redraw(image, np.random.default_rng([self.seed, view.style_seed]), random)
        return np.asarray(_grey(image) if view.grey else image)


def redraw(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """An image in an invented style: one to three changes of palette, line, tone, surface, light or softness.

    `style` determines which changes and how strong, so one seed is one style; `grain` is the randomness within it.
    From a handful of real styles an encoder learns those styles; from invented ones it learns to compare styles
    (SimCLR's augmentations reversed: what they make a model ignore is what distinguishes the classes here).
    """
    changes = (_palette, _lines, _tone, _surface, _shading, _softness)
    for choice in sorted(style.permutation(len(changes))[: style.integers(1, 4)]):
        image = changes[choice](image, style, grain)
    return image


def _lines(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Thicker or thinner dark lines, or outlines drawn in."""
    kind = style.integers(4)
    if kind == 0:
        return image.filter(ImageFilter.MinFilter(3))
    if kind == 1:
        return image.filter(ImageFilter.MaxFilter(3))
    edges = ImageOps.autocontrast(image.convert("L").filter(ImageFilter.FIND_EDGES))
    edges = ImageOps.expand(ImageOps.crop(edges, 2), 2)  # the filter draws a frame around the picture
    if kind == 2:
        edges = edges.filter(ImageFilter.MaxFilter(3))
    ink = tuple(int(value) for value in style.integers(0, 110, 3))
    return Image.composite(Image.new("RGB", image.size, ink), image, edges.point([0] * 60 + [255] * 196))


def _tone(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Another gamma, sometimes posterised."""
    curve = np.linspace(0, 1, 256) ** np.exp(style.uniform(-0.9, 0.9))
    if style.random() < 0.5:
        steps = style.integers(2, 6)
        curve = np.round(curve * steps) / steps
    return image.point([int(value) for value in (255 * curve)] * 3)


def _surface(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Grain, hatching, dots or coarse pixels over the painted part."""
    kind, size = style.integers(4), image.size  # 0 grain, 1 hatching, 2 dots, 3 coarse pixels
    if kind == 3:
        cells = [max(8, int(side / style.uniform(1.8, 4))) for side in size]
        return image.resize(cells, Image.Resampling.BOX).resize(size, Image.Resampling.NEAREST)
    pixels = np.asarray(image, dtype=np.float32)
    if kind == 0:
        pattern = 0.7 * grain.standard_normal(size[::-1], dtype=np.float32)
    else:
        turn, pitch = style.uniform(0, np.pi), style.uniform(0.9, 2.2)
        rows, columns = ((axis + grain.uniform(0, 9)).astype(np.float32) for axis in np.ogrid[: size[1], : size[0]])
        pattern = np.sin((rows * np.cos(turn) + columns * np.sin(turn)) * pitch)
        if kind == 2:
            pattern *= 1.5 * np.sin((columns * np.cos(turn) - rows * np.sin(turn)) * pitch)
    painted = np.clip((255 - pixels.min(2)) / 40, 0.15, 1)  # a white ground stays nearly white
    return _clipped(pixels + (style.uniform(15, 60) * pattern * painted)[..., None])


def _palette(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Colours remixed, from hardly visible to strong, often with rotated hues."""
    mixing = np.eye(3) + np.exp(style.uniform(np.log(0.04), np.log(0.5))) * style.standard_normal((3, 3))
    mixing /= mixing.sum(1, keepdims=True)  # white stays white
    image = image.convert("RGB", tuple(np.pad(mixing, ((0, 0), (0, 1))).ravel()))
    if style.random() < 0.5:
        hue, saturation, value = image.convert("HSV").split()
        turn, scale = int(style.integers(256)), style.uniform(0.4, 1.5)
        hue = hue.point([(level + turn) % 256 for level in range(256)])
        saturation = saturation.point([min(255, int(level * scale)) for level in range(256)])
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return image


def _shading(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Light from one side on rounded forms, as in rendered pictures."""
    radius, turn = style.uniform(3, 9), style.uniform(0, 2 * np.pi)
    painted = ImageOps.invert(image.convert("L")).point([0] * 20 + [255] * 236)
    height = np.asarray(painted.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    down, across = np.gradient(height)
    light = (down * np.sin(turn) + across * np.cos(turn)) * radius * style.uniform(40, 140)
    return _clipped(np.asarray(image, dtype=np.float32) + (light * (np.asarray(painted) > 0))[..., None])


def _softness(image: Image.Image, style: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Blurred, sharpened, or embossed."""
    kind = style.integers(3)
    if kind == 0:
        return image.filter(ImageFilter.GaussianBlur(style.uniform(0.6, 1.8)))
    if kind == 1:
        return image.filter(ImageFilter.UnsharpMask(style.uniform(1, 3), int(style.integers(120, 300)), 0))
    relief = np.asarray(image.convert("L").filter(ImageFilter.EMBOSS), dtype=np.float32)[..., None] - 128
    return _clipped(np.asarray(image, dtype=np.float32) + style.uniform(0.4, 1.2) * relief)


def _clipped(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")
