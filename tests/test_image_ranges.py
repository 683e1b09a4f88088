"""Pictures of more than 8 bits by the range that the file names, and limits of memory and time."""

import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from common.images import io as image_io
from common.images.io import open_image


@pytest.mark.parametrize("name", ["dark.png", "dark.tif", "dark.jp2"])
def test_a_dark_picture_of_16_bits_stays_dark(tmp_path, name):
    Image.fromarray((np.arange(64, dtype=np.uint16) * 257).reshape(8, 8)).save(tmp_path / name)
    assert np.asarray(open_image(tmp_path / name))[..., 0].ravel().tolist() == list(range(64))


def test_ranges_that_files_name(tmp_path):
    grey = np.array([[0, 1000, 2000, 4095]], np.uint16)
    (tmp_path / "12.pgm").write_bytes(b"P5 4 1 4095\n" + grey.astype(">u2").tobytes())
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[341] = 4095  # SMaxSampleValue
    tags.tagtype[341] = 3
    Image.fromarray(grey).save(tmp_path / "12.tif", tiffinfo=tags)
    inverted = TiffImagePlugin.ImageFileDirectory_v2()
    inverted[262] = 0  # white is zero
    Image.fromarray(65535 - grey * 16).save(tmp_path / "white.tif", tiffinfo=inverted)
    for name in ("12.pgm", "12.tif", "white.tif"):
        assert np.abs(np.asarray(open_image(tmp_path / name))[0, :, 0] - [0, 62.3, 124.5, 255]).max() < 1.1, name
    transparent = Image.fromarray(grey)
    transparent.save(tmp_path / "t.png", transparency=1000)
    assert np.asarray(open_image(tmp_path / "t.png"))[0, :, 0].tolist() == [0, 255, 8, 16]


@pytest.mark.parametrize("bits, colour", [(1, 0), (16, 2)])
def test_a_transparent_colour_of_any_depth(tmp_path, bits, colour):
    samples = [0x1234, 0x5678, 0x9ABC] if colour else [0]
    transparent = struct.pack(f">{len(samples)}H", *samples)
    row = b"\0" + (transparent + bytes(6) if colour else b"\x40")  # a transparent pixel, and another
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0), b"tRNS": transparent}
    chunks |= {b"IDAT": zlib.compress(row), b"IEND": b""}
    data = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks.items()
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    expected = [[255] * 3, [0] * 3] if colour else [[255] * 3, [255] * 3]
    assert np.asarray(open_image(tmp_path / "a.png"))[0].tolist() == expected


def test_floats(tmp_path):
    """No file says what they mean: 1 is white, unless one exceeds it. NaN and infinity are black and white."""
    Image.fromarray(np.array([[0, 0.5, np.nan, np.inf]], np.float32)).save(tmp_path / "unit.tif")
    Image.fromarray(np.array([[0, 100, 200, -5]], np.float32)).save(tmp_path / "byte.tif")
    assert np.asarray(open_image(tmp_path / "unit.tif"))[0, :, 0].tolist() == [0, 128, 0, 255]
    assert np.asarray(open_image(tmp_path / "byte.tif"))[0, :, 0].tolist() == [0, 100, 200, 0]


def test_decompression_bomb_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(image_io, "MAX_PIXELS", 100)
    Image.new("1", (20, 20)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png: 20x20 pixels, more than the 100 allowed"):
        open_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("mode, allowed", [("RGB", 120), ("RGBA", 90), ("I", 90), ("L", 120)])
def test_the_limit_is_one_of_memory(tmp_path, monkeypatch, mode, allowed):
    monkeypatch.setattr(image_io, "MAX_PIXELS", 120)
    for count, fits in ((allowed, True), (allowed + 1, False)):
        Image.new(mode, (count, 1)).save(tmp_path / "a.png")
        with nullcontext() if fits else pytest.raises(ValueError, match=f"a.png: .*more than the {allowed} allowed"):
            open_image(tmp_path / "a.png")


def test_what_costs_more_than_it_says_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.tif", compression="tiff_deflate")
    data = (tmp_path / "a.tif").read_bytes()
    (start,) = struct.unpack_from("<I", data, 4)
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 8}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "tile.tif").write_bytes(data[:start] + struct.pack("<H", len(tags)) + table + bytes(4))
    with pytest.raises(ValueError, match="tile.tif: 60000x60000 pixels"):
        open_image(tmp_path / "tile.tif")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    scan = data.rindex(b"\xff\xda")
    (tmp_path / "scans.jpg").write_bytes(data[:-2] + data[scan:-2] * 300)
    with pytest.raises(ValueError, match="scans.jpg: 3.. scans, more than the 200 allowed"):
        open_image(tmp_path / "scans.jpg")
    monkeypatch.setattr(image_io, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="scans.jpg: .* bytes, more than the 100 allowed"):
        open_image(tmp_path / "scans.jpg")


def test_a_broken_tiff_writes_nothing_to_the_terminal(tmp_path):
    """libtiff and Pillow's logger would tell of it without its name."""
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[40:90] = bytes([255]) * 50
    (tmp_path / "a.tif").write_bytes(data)
    code = f"from common.images.io import open_image; open_image({str(tmp_path / 'a.tif')!r})"
    errors = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert errors.startswith("Traceback") and "a.tif: broken image (decoder error -2)" in errors.splitlines()[-1]
