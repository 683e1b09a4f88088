"""Pixels of any mode -> 8-bit RGB.

The values of black and white are those that the file names. PNG, PGM and JPEG 2000 of more than 8 bits arrive from
Pillow in 0..65535, whatever their depth; a TIFF names its bits per sample and format, and SMinSampleValue and
SMaxSampleValue where it uses less than those hold. A signed type is black at its lowest value. Colour of 16 bits loses
its low byte in Pillow. No file says what 32-bit integers and floats mean without those two tags: 1 is taken for white
where no float exceeds it, else 255, else 65535; NaN is black.
"""

import math

import numpy as np
from PIL import Image

ROWS = 256  # that are converted at once, to need little memory
PHOTOMETRIC, BITS, SAMPLE_FORMAT, LOWEST, HIGHEST = 262, 258, 339, 340, 341  # tags of TIFF
SIGNED, FLOAT = 2, 3  # of SAMPLE_FORMAT


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image -> 8-bit RGB on white, a copy."""
    if image.mode.startswith(("I", "F")):  # convert() would clip at 255
        return _to_grey(image).convert("RGB")
    if image.mode == "L" and _tag(image, SAMPLE_FORMAT) == SIGNED:
        return image.point([value ^ 128 for value in range(256)]).convert("RGB")
    transparency = image.info.get("transparency")
    if isinstance(transparency, tuple) and max(transparency) > 255:  # of 16 bits, of which the high byte is left
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparency is not None:
        transparent = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
        return image
    return image.convert("RGB")


def _to_grey(image: Image.Image) -> Image.Image:
    """A picture of one channel of more than 8 bits -> 8-bit grey."""
    values = np.asarray(image)
    low, high = _range(image) or _assumed_range(values)
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        unit = (values[start : start + ROWS].astype(np.float32) - low) / (high - low)
        grey[start : start + ROWS] = np.nan_to_num(unit, nan=0, posinf=1, neginf=0).clip(0, 1) * 255 + 0.5
    if _tag(image, PHOTOMETRIC) == 0:  # 0 is white, which Pillow regards with 8 bits alone
        grey = 255 - grey
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _range(image: Image.Image) -> tuple[float, float] | None:
    """The values of black and white by the file; None where it does not tell."""
    low, high, bits = (_tag(image, tag) for tag in (LOWEST, HIGHEST, BITS))
    kind = _tag(image, SAMPLE_FORMAT)
    by_type = None
    if image.mode.startswith("I;16") or image.format == "PPM" and image.mode == "I":
        by_type = 0.0, 2.0 ** (bits if bits and bits <= 16 else 16) - 1
    elif kind == SIGNED and bits and bits <= 16:
        by_type = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    if high is None:
        return by_type
    low = low or 0.0
    return (low, high) if low < high else by_type


def _assumed_range(values: np.ndarray) -> tuple[float, float]:
    finite = values if values.dtype.kind != "f" else values[np.isfinite(values)]
    top = finite.max(initial=0)
    return 0.0, 1.0 if values.dtype.kind == "f" and top <= 1 else 255.0 if top <= 255 else 65535.0


def _tag(image: Image.Image, tag: int) -> float | None:
    """The first number of a tag of TIFF; None where there is none."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int | float) and math.isfinite(value) else None
