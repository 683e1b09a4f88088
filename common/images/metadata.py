"""Removal of metadata from image files: they do not affect pixels, and must not keep them from being read.

bytes -> bytes that hold only what affects pixels, EXIF apart: PNG chunks, JPEG segments, TIFF tags

Generators write workflows of megabytes into texts of PNG, cameras write wrong types into EXIF, editors leave damaged
profiles. Pillow parses much of that while it opens a file. The other formats keep metadata separate anyway.
"""

import re
import struct
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
JP2_EXIF = (b"JpgTiffExif->JP2", bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e"))  # uuid boxes of ExifTool and Adobe
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"  # says that the colours are YCbCr
TIFF_TAGS = {  # of TIFF 6.0; all that a decoder needs
    *range(256, 260), 262, 266, *range(273, 275), *range(277, 280), 284, 292, 293, 317, *range(320, 326), 332, 338, 339,
    340, 341, 347, *range(512, 522), *range(529, 533),
}  # fmt: skip


def split_metadata(data: bytes) -> tuple[bytes, bytes]:
    """-> a file for a decoder, and EXIF, empty where the decoder finds it by itself.

    Of a damaged file everything from the damage on is kept, for the decoder to report.
    """
    if data.startswith(PNG_START):
        return _split_png(data)
    if data.startswith(b"\xff\xd8"):
        return _split_jpeg(data)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _strip_tiff(data), b""
    if data.startswith(JP2_START):
        return data, next((box[16:] for kind, box in _boxes(data) if kind == b"uuid" and box[:16] in JP2_EXIF), b"")
    if data[4:8] == b"ftyp":  # AVIF, whose orientation is in a box of its own; Pillow fails on damaged EXIF
        return re.sub(rb"(infe\x02\x00\x00\x00.{4})Exif", rb"\1none", data, flags=re.DOTALL), b""
    return data, b""


def _split_png(data: bytes) -> tuple[bytes, bytes]:
    parts, exif, position = [PNG_START], b"", len(PNG_START)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if not kind.isalpha() or position + 12 + length > len(data):
            break
        if kind[:1].isupper() or kind == b"tRNS":  # upper case: needed to decode, by the standard
            parts.append(data[position : position + 12 + length])
        elif kind == b"eXIf":
            exif = data[position + 8 : position + 8 + length]
        position += 12 + length
    return b"".join([*parts, data[position:]]), exif


def _split_jpeg(data: bytes) -> tuple[bytes, bytes]:
    parts, exif, position = [b"\xff\xd8"], b"", 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or length < 2:  # a scan begins, or the file is damaged
            break
        segment = data[position : position + 2 + length]
        content = segment[4:]
        adobe = marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12  # how colours are stored
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif = exif or content[6:]
        elif marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14:
            parts.append(JFIF)
        elif marker < 0xE0 or adobe:
            parts.append(segment)
        position += 2 + length
    return b"".join([*parts, data[position:]]), exif


def _strip_tiff(data: bytes) -> bytes:
    """The first picture alone, with TIFF_TAGS alone."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data.ljust(8, b"\0"), 4)
    if start + 2 > len(data):
        return data
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = [data[place : place + 12] for place in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if len(entry) == 12 and struct.unpack_from(f"{order}H", entry)[0] in TIFF_TAGS]
    table = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return data[:start] + table + data[start + len(table) :]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """-> kind, content of the boxes of a JP2 before its pixels."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8 or kind == b"jp2c":
            return
        yield kind, data[position + 8 : position + length]
        position += length
