"""Reproduction of an invented picture: pixel grid, paper, blur, noise, compression."""

import io

import numpy as np
from PIL import Image, ImageFilter

from common.samples.invented_style import Finish


def on_grid(picture: Image.Image, cells: int, box: float) -> Image.Image:
    """The middle of the picture (a square of `box` pixels) as `cells` x `cells` square pixels."""
    left = (picture.width - box) / 2
    side = max(round(picture.width * cells / box / 2) * 2, 1)
    small = picture.transform(
        (side, side),
        Image.Transform.AFFINE,
        (
            box / cells,
            0,
            left - (side - cells) / 2 * box / cells,
            0,
            box / cells,
            left - (side - cells) / 2 * box / cells,
        ),
    )
    scale = cells / box
    offset = (side - cells) / 2 - left * scale
    return small.transform(picture.size, Image.Transform.AFFINE, (scale, 0, offset, 0, scale, offset))


def finish(picture: Image.Image, style: Finish, random: np.random.Generator) -> np.ndarray:
    """-> (size, size, 3) uint8"""
    unit = picture.width / 128
    if style.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(style.blur * unit))
    if style.sharpen:
        picture = picture.filter(ImageFilter.UnsharpMask(unit, round(style.sharpen * 150), 0))
    if style.texture or style.noise:
        shape = (picture.height, picture.width)
        fibres = Image.fromarray(random.normal(0, 1, (shape[0] // 2, shape[1] // 2)).astype(np.float32))
        paper = np.asarray(fibres.resize(picture.size, Image.Resampling.BICUBIC)) * style.texture
        pixels = np.asarray(picture, np.float32) + (paper + random.normal(0, style.noise, shape))[..., None]
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if style.levels:
        picture = picture.point(
            [round(value / 255 * (style.levels - 1)) * 255 // (style.levels - 1) for value in range(256)] * 3
        )
    if style.jpeg:
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=style.jpeg)
        picture = Image.open(data).convert("RGB")
    return np.asarray(picture)
