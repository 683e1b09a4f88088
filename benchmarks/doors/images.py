"""common.images.io.open_image: files of nine formats with a few bytes changed."""

from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

from PIL import ExifTags, Image

from benchmarks.doors import mutated, refused
from common.images.io import FORMATS, open_image


def trial(random: Random, folder: Path) -> str:
    path = folder / "picture.png"
    path.write_bytes(mutated(random, _file(random.choice(FORMATS))))
    try:
        picture = open_image(path)
    except ValueError as error:
        return refused(error, path)
    assert picture.mode == "RGB" and picture.width * picture.height > 0
    return "read"


@cache
def _file(format: str) -> bytes:
    picture, file, exif = Image.effect_noise((64, 48), 80).convert("RGB"), BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(file, format, **({"exif": exif} if format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF") else {}))
    return file.getvalue()
