"""common.images.io.open_image: files of nine formats with a few bytes changed, whole ones with random metadata, and
pictures of up to 32 bits, whose values must come through."""

import struct
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from benchmarks.doors import mutated, refused
from common.images.io import FORMATS, image_size, open_image

SIZE = 64, 48
CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"prVt", b"acTL")
STARTS = (b"", b"Exif\0\0", b"JFIF\0", b"Adobe", b"MPF\0", b"ICC_PROFILE\0\1\1", b"Photoshop 3.0\x008BIM")


def trial(random: Random, folder: Path) -> str:
    path = folder / "picture.png"
    return random.choice([_damaged, _damaged, _with_metadata, _deep])(random, path)


def _damaged(random: Random, path: Path) -> str:
    path.write_bytes(mutated(random, _file(random.choice(FORMATS))))
    try:
        picture = open_image(path)
    except ValueError as error:
        return refused(error, path)
    assert picture.mode == "RGB" and picture.width * picture.height > 0 and picture.info == {}
    return "read"


def _with_metadata(random: Random, path: Path) -> str:
    """Metadata of any content: the pixels are those of the file without it."""
    format = random.choice(["PNG", "JPEG", "TIFF", "AVIF"])
    data = _file(format, exif=False)
    path.write_bytes(
        {"PNG": _add_chunks, "JPEG": _add_segments, "TIFF": _add_tags, "AVIF": _add_exif}[format](random, data)
    )
    assert image_size(path) == open_image(path).size == SIZE, format
    assert open_image(path).tobytes() == _pixels(format), format
    return "read"


def _add_chunks(random: Random, data: bytes) -> bytes:
    """PNG chunks before the pixels or behind them, some with a wrong checksum."""
    places = [data.index(b"IDAT") - 4, data.index(b"IEND") - 4]
    for place in sorted(places, reverse=True):
        for _ in range(random.randint(0, 4)):
            kind, content = random.choice(CHUNKS), random.choice([_garbage, _bomb])(random)
            checksum = zlib.crc32(kind + content) if random.random() < 0.7 else random.getrandbits(32)
            data = (
                data[:place]
                + struct.pack(">I4s", len(content), kind)
                + content
                + struct.pack(">I", checksum)
                + data[place:]
            )
    return data


def _add_segments(random: Random, data: bytes) -> bytes:
    """Application segments and comments of a JPEG. A whole JFIF or Adobe segment decides about colours."""
    added = b""
    for _ in range(random.randint(1, 4)):
        marker, start = random.choice([*range(0xE0, 0xF0), 0xFE]), random.choice(STARTS)
        content = start + _garbage(random)
        if marker == 0xEE and start == b"Adobe" or marker == 0xE1 and start == b"Exif\0\0":
            content = content[:11]
        added += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    return data[:2] + added + data[2:]


def _add_tags(random: Random, data: bytes) -> bytes:
    """Tags of a TIFF that say nothing about pixels, of any type, count and content."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    for tag in (270, 282, 283, 296, 305, 306, 700, 33723, 34377, 34665, 34675, 34853, 40965, 50000):
        if random.random() < 0.5:
            entries.append(
                struct.pack("<HHI", tag, random.randint(0, 20), random.getrandbits(32)) + random.randbytes(4)
            )
    place = len(data)
    table = (
        struct.pack("<H", len(entries))
        + b"".join(sorted(entries))
        + random.choice([bytes(4), struct.pack("<I", place)])
    )
    return data[:4] + struct.pack("<I", place) + data[8:] + table


def _add_exif(random: Random, data: bytes) -> bytes:
    """EXIF of an AVIF, damaged at random."""
    start = data.index(b"MM\0*")
    return data[:start] + random.randbytes(12) + data[start + 12 :]


def _garbage(random: Random) -> bytes:
    return random.randbytes(random.choice([0, 1, 5, 9, 14, 40]))


def _bomb(random: Random) -> bytes:
    return b"name\0\0" + _compressed_zeros()


@cache
def _compressed_zeros() -> bytes:
    return zlib.compress(bytes(100_000_000))


def _deep(random: Random, path: Path) -> str:
    """Dark grey of 12 to 32 bits, by the range of the type."""
    kind = random.choice(["png", "pgm", "jp2", "tiff 12", "tiff 16", "tiff 16 inverted", "tiff signed", "tiff named"])
    top = 4095 if kind in ("pgm", "tiff 12") else 65535
    values = np.random.default_rng(random.getrandbits(32)).integers(0, random.randint(1, top), (6, 8)).astype(np.uint16)
    expected = values / top
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if kind == "pgm":
        path.write_bytes(b"P5 8 6 4095\n" + values.astype(">u2").tobytes())
    elif kind == "tiff 12":
        path.write_bytes(_tiff_12(values))
    elif kind == "tiff signed":
        path.write_bytes(_tiff_signed(values))
    else:
        if kind == "tiff 16 inverted":
            tags[262], expected = 0, 1 - expected
        elif kind == "tiff named":
            tags[341] = max(1, int(values.max()))
            tags.tagtype[341] = 3
            expected = values / tags[341]
        format = {"png": "PNG", "jp2": "JPEG2000"}.get(kind, "TIFF")
        Image.fromarray(values).save(path, format, **({"tiffinfo": tags} if format == "TIFF" else {}))
    grey = np.asarray(open_image(path))[..., 0]
    assert np.abs(grey - 255 * expected).max() <= 0.51, kind
    return "read"


def _tiff(entries: list[tuple[int, int, int]], pixels: bytes) -> bytes:
    """entries: tag, type, value of a little-endian TIFF of one strip, at byte 8."""
    tags = sorted(
        [(256, 3, 8), (257, 3, 6), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, len(pixels)), *entries]
    )
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + table + bytes(4)


def _tiff_12(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2).astype(np.uint32)  # two samples in three bytes, the first in the high bits
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    return _tiff([(258, 3, 12)], packed.astype(np.uint8).tobytes())


def _tiff_signed(values: np.ndarray) -> bytes:
    return _tiff([(258, 3, 16), (339, 3, 2)], (values.astype(np.int32) - 32768).astype("<i2").tobytes())


@cache
def _file(format: str, exif: bool = True) -> bytes:
    picture, file, metadata = Image.effect_noise(SIZE, 80).convert("RGB"), BytesIO(), Image.Exif()
    metadata[ExifTags.Base.Make] = "camera"
    if exif:
        metadata[ExifTags.Base.Orientation] = 6
    with_exif = format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
    picture.save(file, format, **({"exif": metadata} if with_exif else {}))
    return file.getvalue()


@cache
def _pixels(format: str) -> bytes:
    return open_image(Image.open(BytesIO(_file(format, exif=False)))).tobytes()
