"""Opening an image that somebody else made.

file -> checks -> first frame, upright, 8-bit RGB on white (PIL)

Every problem is a ValueError or FileNotFoundError that begins with the file's name.
"""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common.images.webdataset import TarMember
from common.text.files import LFS_HINT, LFS_START

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PIXELS = 120_000_000  # about 360 MB as RGB; larger files are refused before they are decoded

# Ours names the file and is an error, not a warning; this module checks every image it opens.
Image.MAX_IMAGE_PIXELS = None


def open_image(path: str | Path | TarMember, grey: bool = False, at_least: int = 0) -> Image.Image:
    """Decode one file -> RGB image. `grey` takes the colours away (three equal channels).

    at_least: pixels of the shorter side that are enough. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size where
    that leaves so many, which its blocks allow at a fraction of the work; others come at full size.
    """
    inside = isinstance(path, TarMember)
    path = path if inside else Path(path)
    if not inside and not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    try:
        with Image.open(BytesIO(path.read()) if inside else path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{path}: {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed")
            if at_least and image.format == "JPEG":
                image.draft(None, (at_least, at_least))
            image.seek(0)  # first frame of an animation
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        start = path.read()[:64] if inside else path.open("rb").read(64)
        raise ValueError(f"{path}: {_why_not_an_image(start)}") from None
    except (OSError, SyntaxError, EOFError, MemoryError) as error:  # what Pillow's decoders raise on broken data
        raise ValueError(f"{path}: broken image ({' '.join(str(error).split())})") from error
    return rgb.convert("L").convert("RGB") if grey else rgb


def path_below(folder: Path, name: str) -> Path:
    """The path that a data set's file names; ValueError where it leads out of the folder, by '..' or from the root.

    By the words of the path alone: a link inside the folder may lead to another disk.
    """
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise ValueError(f"'{name}' leaves the data folder {folder}; give paths below it, or a folder above them all")
    return path


def list_images(folder: str | Path) -> list[Path]:
    """Every image file below `folder`, sorted by path; hidden files and folders are left out."""
    folder = Path(folder)
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise FileNotFoundError(f"{folder}: no image below it; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return found


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit, 32-bit and float grey: convert() would clip at 255
        values = np.asarray(image, dtype=np.float32)
        top = float(values.max(initial=0))
        unit = 1.0 if top <= 1 and image.mode == "F" else 255.0 if top <= 255 else 65535.0
        return Image.fromarray((values.clip(0, unit) * (255 / unit)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _why_not_an_image(start: bytes) -> str:
    if not start:
        return "the file is empty"
    if start.startswith(LFS_START):
        return LFS_HINT
    if start.lstrip().startswith((b"<svg", b"<?xml")):
        return "an SVG drawing; draw it as PNG first"
    return "not an image that Pillow can read"
