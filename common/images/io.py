"""Opening image files of any origin.

file -> checks -> first frame, upright, 8-bit RGB on white (PIL)

Every problem is a ValueError or FileNotFoundError that begins with the file's name.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from common.images.webdataset import TarMember
from common.text.files import LFS_HINT, LFS_START

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Of a file, whatever its suffix. Others start a program (EPS) or decode before their size is known (ICO, ICNS).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 120_000_000  # of 3 bytes, about 360 MB; larger files are refused before decoding
UPRIGHT = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow refuses twice that by itself, while it reads the header
# Generators of images write workflows of megabytes into PNG's texts, which say nothing about pixels.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def open_image(path: str | Path | TarMember, grey: bool = False, at_least: int = 0) -> Image.Image:
    """Decode one file -> RGB image. grey: without colours (three equal channels).

    at_least: required pixels of the shorter side. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves
    enough of them, which costs a fraction of the work; other formats are decoded at full size.
    """
    with open_header(path) as image:
        if at_least and image.format == "JPEG":
            image.draft(None, (at_least, at_least))
        image.seek(0)  # first frame of an animation
        image.load()
        rgb = upright_rgb(image)
    return rgb.convert("L").convert("RGB") if grey else rgb


@contextmanager
def open_header(path: str | Path | TarMember) -> Iterator[Image.Image]:
    """An image file of which nothing is decoded yet. What goes wrong here or in the block is an error with its name."""
    source = path if isinstance(path, TarMember) else Path(path)
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not an image' if source.is_dir() else 'no such file'}")
    try:
        with Image.open(BytesIO(source.read()) if isinstance(source, TarMember) else source, formats=FORMATS) as image:
            has_four_bytes = image.mode in ("RGBA", "CMYK") or image.mode[0] in "IF"  # in memory, by pixel
            allowed = MAX_PIXELS * 3 // 4 if has_four_bytes else MAX_PIXELS
            if image.width * image.height > allowed:
                raise ValueError(f"{path}: {image.width}x{image.height} pixels, more than the {allowed:,} allowed")
            yield image
    except UnidentifiedImageError:
        start = source.read()[:64] if isinstance(source, TarMember) else source.open("rb").read(64)
        reason = "not an image that Pillow can read" if start else "the file is empty"
        if start.startswith(LFS_START):
            reason = LFS_HINT
        elif start.lstrip().startswith((b"<svg", b"<?xml")):
            reason = "an SVG drawing; convert it to PNG first"
        raise ValueError(f"{path}: {reason}") from None
    except Exception as error:  # a decoder raises anything on broken data: RuntimeError, IndexError, struct.error, ...
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: broken image ({' '.join(str(error).split()) or type(error).__name__})") from error


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) .. 8. Whatever else metadata hold, and in whatever state, says nothing."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in UPRIGHT else 1
    except Exception:  # damaged metadata raise anything
        return 1


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode -> 8-bit RGB on white, turned as its EXIF tag says."""
    turn = UPRIGHT.get(orientation(image))
    return _to_rgb(image if turn is None else image.transpose(turn))


def path_below(folder: Path, name: str) -> Path:
    """The path of a file that a data set lists; ValueError if it leaves the folder, by '..' or as an absolute path.

    Links are not resolved: one inside the folder may lead to another disk.
    """
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise ValueError(f"'{name}' leaves the data folder {folder}; give paths below it, or a folder above them all")
    return path


def walk_images(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Everything below `folder` that is named like an image, dangling links too, in no order.

    Hidden files and folders are skipped, and __MACOSX, which a Mac's archives add. Links to folders are followed, but
    not back to one of `above`, where the walk would never end.
    """
    real = folder.resolve()
    if any(one.is_relative_to(real) for one in above):
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir():
            yield from walk_images(path, (*above, real))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def list_images(folder: str | Path) -> list[Path]:
    """All image files below `folder`, sorted by path; without what walk_images skips."""
    folder = Path(folder)
    paths = sorted(path for path in walk_images(folder) if path.is_file()) if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"{folder}: no image below it; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return paths


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit, 32-bit and float grey: convert() would clip at 255
        values = np.asarray(image, dtype=np.float32)
        top = float(values.max(initial=0))
        unit = 1.0 if top <= 1 and image.mode == "F" else 255.0 if top <= 255 else 65535.0
        return Image.fromarray((values.clip(0, unit) * (255 / unit)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
