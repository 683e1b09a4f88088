"""Opening images of any origin.

file, member of a tar, PIL image -> checks -> first frame, upright, 8-bit RGB on white (PIL)

Every problem is a ValueError or FileNotFoundError that begins with the file's name.
"""

import ctypes
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PureWindowsPath

from PIL import ExifTags, Image, UnidentifiedImageError

from common.cli.errors import one_line, printable
from common.images.folders import IMAGE_SUFFIXES, list_images, no_file, walk_images
from common.images.metadata import split_metadata
from common.images.pixels import to_rgb
from common.images.webdataset import TarMember
from common.text.files import LFS_HINT, LFS_START

__all__ = [
    "IMAGE_SUFFIXES", "ImageSource", "image_size", "list_images", "open_image", "path_below", "upright_rgb",
    "walk_images",
]  # fmt: skip

ImageSource = str | Path | TarMember | Image.Image

# Of a file, whatever its suffix. Others start a program (EPS) or decode before their size is known (ICO, ICNS).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
MAX_PIXELS = 120_000_000  # of 4 bytes, twice: about 1 GB at most; larger files are refused before decoding
COSTLY = ("WEBP", "AVIF", "JPEG2000")  # decoded into buffers of their own: half as many pixels are allowed
MAX_BYTES = 8 * MAX_PIXELS  # of a file
MAX_SCANS = 200  # of a progressive JPEG, each of which costs a pass over all pixels; encoders write about ten
HEADER_BYTES = 2**17  # of a JPEG, which nearly always hold its size
OTHER_KINDS = {  # first bytes of what is often named like an image, and what it is
    rb"(\xef\xbb\xbf)?\s*<(svg|\?xml)": "an SVG drawing",
    rb"\s*<(!doctype html|html)": "a page of HTML, which a server sent in place of an image; download it again",
    rb"....ftyp(he|mif1|msf1)": "a HEIC photo",
    rb"....ftyp": "a video",
    rb"\xff\x0a|\x00{3}\x0cJXL ": "JPEG XL",
    rb"8BPS": "a Photoshop file",
    rb"%PDF|%!PS|\xc5\xd0\xd3\xc6": "a PDF or PostScript file",
    rb"\x00\x00\x01\x00|icns": "an icon",
}
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
# What Pillow and libtiff print about a broken file, without its name, is noise: the error has it.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
if hasattr(libtiff := ctypes.CDLL(Image.core.__file__), "TIFFSetErrorHandler"):  # not where it is linked statically
    libtiff.TIFFSetErrorHandler(None)


class ImageTooLarge(ValueError):
    """More pixels, scans or bytes than are allowed."""


def open_image(source: ImageSource, at_least: int = 0) -> Image.Image:
    """-> RGB image without metadata.

    at_least: required pixels of the shorter side. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves
    enough of them, which costs a fraction of the work; other formats are decoded at full size.
    """
    with _opened(source) as image:
        if at_least and image.format == "JPEG":
            image.draft(None, (at_least, at_least))
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode -> 8-bit RGB on white, turned as its EXIF tag says, without metadata.

    Of an image that is not decoded yet, open_image names and limits what goes wrong.
    """
    image.load()
    rgb, number = to_rgb(image), _orientation(image)
    if number in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[number])
    rgb.info.clear()  # or the next one who opens it would turn it again
    return rgb


def image_size(path: str | Path | TarMember) -> tuple[int, int]:
    """-> width, height, upright, without decoding."""
    with _opened(path, header=True) as image:
        return image.size[::-1] if _orientation(image) >= 5 else image.size


@contextmanager
def _opened(source: ImageSource, header: bool = False) -> Iterator[Image.Image]:
    """The first frame, not decoded yet. What goes wrong here or in the block is an error with the name of the file.

    header: only the size is wanted.
    """
    if isinstance(source, Image.Image):
        name, data = printable(getattr(source, "filename", "") or "PIL image"), b""
    else:
        name = printable(source)
        data = _read(source, name, header)
    try:
        image = source if isinstance(source, Image.Image) else _open(data)
        _check_size(image, data)
        yield image
    except UnidentifiedImageError:
        raise ValueError(f"{name}: {_unknown(data)}") from None
    except ImageTooLarge as error:
        raise ImageTooLarge(f"{name}: {error}") from None
    except Exception as error:  # a decoder raises anything on broken data: RuntimeError, IndexError, struct.error, ...
        raise ValueError(f"{name}: broken image ({one_line(error) or type(error).__name__})") from error


def _read(source: str | Path | TarMember, name: str, header: bool) -> bytes:
    if isinstance(source, TarMember):
        return source.read()
    path = Path(source)
    try:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {no_file(path)}")
        with path.open("rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                raise ImageTooLarge(f"{name}: {size:,} bytes, more than the {MAX_BYTES:,} allowed")
            start = file.read(HEADER_BYTES)
            if header and start.startswith(b"\xff\xd8") and b"\xff\xda" in split_metadata(start)[0]:
                return start
            return start + file.read()
    except OSError as error:
        if not error.strerror:
            raise
        raise ValueError(f"{name}: cannot be read ({error.strerror})") from None


def _open(data: bytes) -> Image.Image:
    pixels, exif = split_metadata(data)
    image = Image.open(BytesIO(pixels), formats=FORMATS)
    if exif:
        image.info["exif"] = exif
    return image


def _check_size(image: Image.Image, data: bytes) -> None:
    """ImageTooLarge before memory is taken or time is spent."""
    allowed = MAX_PIXELS
    if image.format in COSTLY:
        allowed //= 2
    elif image.mode in ("RGBA", "CMYK") or image.mode[0] in "IF":
        allowed = allowed * 3 // 4
    tags = getattr(image, "tag_v2", {})
    for width, height in (image.size, (tags.get(322, 1), tags.get(323, 1))):  # tiles of a TIFF are of any size
        if width * height > allowed:
            raise ImageTooLarge(f"{width}x{height} pixels, more than the {allowed:,} allowed")
    if not image.width * image.height:
        raise ValueError(f"{image.width}x{image.height} pixels")
    if image.format == "JPEG" and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise ImageTooLarge(f"{scans} scans, more than the {MAX_SCANS} allowed")


def _unknown(data: bytes) -> str:
    """What a file is that no decoder takes."""
    if data.startswith(LFS_START):
        return LFS_HINT
    if kind := next((kind for start, kind in OTHER_KINDS.items() if re.match(start, data, re.DOTALL | re.I)), None):
        return kind if ";" in kind else f"{kind}; convert it to PNG or JPEG first"
    return "not an image that Pillow can read" if data else "the file is empty"


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) .. 8. Whatever else metadata hold, and in whatever state, says nothing.

    A TIFF is turned by Pillow. AVIF has boxes of its own, which Pillow passes on as EXIF.
    """
    try:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        return value if (value := exif.get(ExifTags.Base.Orientation)) in UPRIGHT else 1
    except Exception:  # damaged metadata raise anything
        return 1


def path_below(folder: Path, name: str) -> Path:
    """The path of a file that a data set lists; ValueError if it leaves the folder, by '..' or as an absolute path.

    Links are not resolved: one inside the folder may lead to another disk.
    """
    below = os.path.relpath(name, folder) if Path(name).is_absolute() else name
    path = Path(os.path.normpath(folder / below))
    if not path.is_relative_to(os.path.normpath(folder)) or PureWindowsPath(name).is_absolute():
        raise ValueError(f"'{name}' leaves the data folder {folder}; give paths below it, or a folder above them all")
    return path
