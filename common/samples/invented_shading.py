"""Areas of the invented styles: fills, shading, highlights and shadows, on masks (L, size x size)."""

from functools import cached_property

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from common.samples.invented_palettes import Colour, darker, lighter, mix
from common.samples.invented_style import Light, Paint

STRIPES = ("hatch", "cross", "dots", "bars")


def put(canvas: Image.Image, colour: Colour | int, mask: Image.Image) -> None:
    """Paint a colour through a mask, only where there is some of it."""
    box = mask.getbbox()
    if box:
        canvas.paste(colour, box, mask.crop(box))


def scaled(mask: Image.Image, share: float) -> Image.Image:
    return mask if share >= 1 else mask.point([round(value * max(share, 0)) for value in range(256)])


def moved(mask: Image.Image, right: float, down: float) -> Image.Image:
    """Translated by whole pixels; what leaves on one side is lost."""
    result = Image.new("L", mask.size)
    result.paste(mask, (round(right), round(down)))
    return result


def dilate(mask: Image.Image, reach: float) -> Image.Image:
    """Grown by about `reach` pixels, with round corners."""
    blurred = mask.filter(ImageFilter.GaussianBlur(reach * 0.75))
    return ImageChops.lighter(blurred.point([min(max((value - 22) * 12, 0), 255) for value in range(256)]), mask)


def cast_shadow(mask: Image.Image, light: Light, unit: float) -> Image.Image:
    length = light.shadow_length * unit
    if light.shadow == "soft":
        shadow = moved(mask, 0.3 * length, length).filter(ImageFilter.GaussianBlur(light.shadow_blur * unit))
    elif light.shadow == "hard":
        shadow = moved(mask, length, length)
    else:  # swept along the diagonal by steps that double
        shadow, reach = mask, 1
        while reach < length:
            step = min(reach, max(round(length) - reach, 1))
            shadow, reach = ImageChops.lighter(shadow, moved(shadow, step, step)), reach + step
    return scaled(shadow, light.shadow_strength)


class Shader:
    """Fills of one picture. The patterns lie on the picture, not on the area, so neighbours share their lines."""

    def __init__(self, paint: Paint, light: Light, size: int, random: np.random.Generator):
        self.paint, self.light, self.size, self.random, self.unit = paint, light, size, random, size / 128

    def fill(self, canvas: Image.Image, mask: Image.Image, colour: Colour) -> None:
        """Paint an area with everything that belongs to it, but not its outline."""
        paint, light, unit = self.paint, self.light, self.unit
        put(canvas, colour, scaled(mask, paint.opacity))
        if paint.fill != "flat":
            second = mix(colour, paint.paper, paint.strength)
            if paint.fill in ("gradient", "radial"):
                second = (
                    darker(colour, paint.strength * 0.7) if sum(colour) > 300 else lighter(colour, paint.strength * 0.6)
                )
            put(canvas, second, ImageChops.multiply(mask, self._pattern(mask)))
        if light.crescent:
            shift = -light.crescent * unit
            rest = ImageChops.subtract(mask, moved(mask, shift, shift))
            put(canvas, darker(colour, 0.28), rest)
        if light.bevel:
            self._bevel(canvas, mask, colour)
        if light.rim:
            inner = mask.filter(ImageFilter.GaussianBlur(light.rim * unit))
            band = ImageChops.multiply(
                mask, inner.point([255 if value < 150 else max(0, 255 - (value - 150) * 6) for value in range(256)])
            )
            put(canvas, lighter(colour, 0.55), band)
        if light.gloss:
            left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
            glare = Image.new("L", mask.size)
            width, height = right - left, bottom - top
            ramp = (
                Image.linear_gradient("L")
                .transpose(Image.Transpose.FLIP_TOP_BOTTOM)
                .resize((max(width, 1), max(height // 2, 1)))
            )
            glare.paste(ramp, (left, top))
            put(canvas, (255, 255, 255), scaled(ImageChops.multiply(mask, glare), light.gloss))

    def _bevel(self, canvas: Image.Image, mask: Image.Image, colour: Colour) -> None:
        """Light from the upper left on a height that rises from the edge inwards."""
        depth = self.light.bevel * self.unit
        height = mask.filter(ImageFilter.GaussianBlur(depth))
        shift = max(depth / 2, 1)
        ahead, behind = moved(height, shift, shift), moved(height, -shift, -shift)
        strength = self.light.bevel_strength
        for first, second, tone in ((behind, ahead, lighter(colour, 0.7)), (ahead, behind, darker(colour, 0.6))):
            slope = ImageChops.multiply(mask, ImageChops.subtract(first, second, scale=0.7))
            put(canvas, tone, scaled(slope, strength))

    def _pattern(self, mask: Image.Image) -> Image.Image:
        """Where the second colour goes (L)."""
        if self.paint.fill in STRIPES or self.paint.fill == "grain":
            return self._screen
        left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32)
        x, y = (x - (left + right) / 2) / max(right - left, 1), (y - (top + bottom) / 2) / max(bottom - top, 1)
        if self.paint.fill == "radial":
            share = np.hypot(x + 0.2, y + 0.2) * 1.5
        else:
            angle = np.radians(self.paint.angle)
            share = 0.5 + x * np.cos(angle) + y * np.sin(angle)
            if self.paint.fill == "wash":
                edge = np.asarray(mask.filter(ImageFilter.GaussianBlur(3 * self.unit)), np.float32) / 255
                share = 0.3 * share + 0.7 * self._clouds + 1.2 * (edge - 0.75)
        return Image.fromarray((np.clip(share, 0, 1) * 255).astype(np.uint8))

    @cached_property
    def _clouds(self) -> np.ndarray:
        coarse = Image.fromarray(self.random.random((7, 7), dtype=np.float32))
        return np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BICUBIC))

    @cached_property
    def _screen(self) -> Image.Image:
        """Stripes, crossed stripes, dots or grain over the whole picture, with smooth edges."""
        paint = self.paint
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32) / self.unit
        if paint.fill == "grain":
            side = max(int(self.size / max(paint.period / 4, 1)), 2)
            values = Image.fromarray(self.random.random((side, side), dtype=np.float32))
            share = (np.asarray(values.resize((self.size, self.size), Image.Resampling.BICUBIC)) - 0.55) * 8 + 0.5
        else:
            angle = np.radians(0 if paint.fill == "bars" else paint.angle)
            u, v = (x * np.cos(angle) + y * np.sin(angle)), (y * np.cos(angle) - x * np.sin(angle))
            across, down = (np.abs((axis / paint.period) % 1 - 0.5) * 2 for axis in (u, v))  # 1 on a line
            height = {
                "hatch": across - 0.5,
                "bars": down - 0.45,
                "cross": np.maximum(across, down) - 0.7,
                "dots": 0.55 - np.hypot(1 - across, 1 - down),
            }[paint.fill]
            if paint.fill in ("hatch", "dots"):
                height = height + 0.3 * (self._clouds - 0.5)
            share = height * paint.period / 2 * self.unit + 0.5
        return Image.fromarray((np.clip(share, 0, 1) * 255).astype(np.uint8))
