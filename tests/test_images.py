"""Opening images: every format becomes upright 8-bit RGB, every bad file is one line with its name."""

import os
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from common.images.io import image_size, open_image


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def test_modes_become_rgb(tmp_path):
    grey16 = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    Image.new("LA", (8, 8), (10, 0)).save(tmp_path / "la.png")
    Image.new("P", (8, 8), 3).save(tmp_path / "palette.png")
    for name in ("grey16.png", "cmyk.jpg", "bits.png", "la.png", "palette.png"):
        picture = open_image(tmp_path / name)
        assert picture.mode == "RGB" and picture.size == (8, 8), name
    assert np.asarray(open_image(tmp_path / "grey16.png"))[..., 0].max() == 255
    middle = np.asarray(open_image(tmp_path / "grey16.png"))[4, 0, 0]
    assert abs(int(middle) - 130) < 3  # scaled, not clipped at 255
    red = np.asarray(open_image(tmp_path / "cmyk.jpg"))[4, 4]
    assert red[0] > 200 and red[1] < 60 and red[2] < 60


def test_transparency_becomes_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba).quantize(method=Image.Quantize.FASTOCTREE).save(tmp_path / "p.png")
    for name in ("a.png", "p.png"):
        pixels = np.asarray(open_image(tmp_path / name))
        assert pixels[3, 3].tolist() == [255, 255, 255] and pixels[0, 0, 0] > 250 and pixels[0, 0, 1] < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :12] = 255  # the white corner is top left
    turn_back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # to Pillow's Transpose numbers
    picture = Image.fromarray(upright)
    if orientation > 1:
        picture = picture.transpose(Image.Transpose(turn_back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = np.asarray(open_image(tmp_path / "a.png"))
    assert pixels.shape == (16, 24, 3) and (pixels == upright).all()


UPRIGHT = np.kron(np.array([[255, 0, 0], [0, 0, 90]], np.uint8), np.ones((16, 16), np.uint8))[..., None].repeat(3, 2)


def turned(path, format, tag=6):
    """A file whose pixels lie on their side, and whose metadata say so."""
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "JPEG": {"quality": 98}}.get(format, {})
    picture = Image.fromarray(UPRIGHT).transpose(Image.Transpose.ROTATE_90)
    if format == "JPEG2000":
        picture.save(path, format)
        box = b"JpgTiffExif->JP2" + exif.tobytes()[6:]
        start = path.read_bytes()
        place = start.index(b"jp2c") - 4
        path.write_bytes(start[:place] + struct.pack(">I4s", len(box) + 8, b"uuid") + box + start[place:])
    elif format == "MPO":
        picture.save(path, format, save_all=True, append_images=[Image.new("RGB", (9, 9))], exif=exif, quality=98)
    else:
        picture.save(path, format, exif=exif, **options)
    return path


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "JPEG2000", "MPO"])
def test_a_picture_is_turned_once(tmp_path, format):
    path = turned(tmp_path / "a.png", format)
    picture = open_image(path)
    assert image_size(path) == picture.size == (48, 32)
    assert np.abs(np.asarray(picture).astype(int) - UPRIGHT).max() < 12
    assert open_image(picture).tobytes() == picture.tobytes()  # a picture that comes through again is not turned again
    if format != "JPEG2000":  # of which Pillow passes no EXIF on
        assert open_image(Image.open(path)).tobytes() == picture.tobytes()


def test_xmp_does_not_turn_a_picture(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (8, 4)).save(tmp_path / "a.webp", xmp=xmp)
    assert Image.open(tmp_path / "a.webp").getexif()[0x0112] == 6 and open_image(tmp_path / "a.webp").size == (8, 4)


def test_pil_images_come_through_the_same_door(tmp_path):
    (tmp_path / "a.png").write_bytes(save(tmp_path / "b.png", UPRIGHT).read_bytes()[:-60])
    with pytest.raises(ValueError, match="a.png: broken"):
        open_image(Image.open(tmp_path / "a.png"))  # decoded only now
    assert open_image(Image.new("RGBA", (2, 2))).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(Image.new("I;16", (2, 2), 257 * 9)).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("name", ["a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert Image.open(tmp_path / name).n_frames == 2
    assert np.asarray(open_image(tmp_path / name))[0, 0].tolist() == [255, 0, 0]


def test_extreme_shapes_and_names(tmp_path):
    for name, size in (("一 只 猫.png", (1, 1)), ("x\ny.png", (1, 5000)), ("🐟.png", (5000, 1))):
        Image.new("L", size, 9).save(tmp_path / name)
        assert open_image(tmp_path / name).size == size


def change(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def bad_files(folder):
    good = save(folder / "good.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = good.read_bytes()
    jpeg = save(folder / "good.jpg", np.zeros((64, 64, 3), np.uint8)).read_bytes()
    return {
        "truncated.png": (data[: len(data) // 2], "broken"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "broken"),
        "crc.png": (change(data, 29), "not an image|broken"),  # the checksum of the header
        "chunk.png": (change(data, 40), "broken|not an image"),  # a chunk's name
        "bit.png": (change(data, len(data) // 2), "broken"),  # a pixel's: the checksum within is wrong
        "empty.png": (b"", "empty"),
        "text.png": (b"hello", "not an image"),
        "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS"),
    }


def test_bad_files_are_named(tmp_path):
    for name, (data, words) in bad_files(tmp_path).items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=words) as error:
            open_image(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="none.png: no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FileNotFoundError, match="pipe.png: not a regular file"):
        open_image(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(FileNotFoundError, match="loop.png"):
        open_image(tmp_path / "loop.png")


@pytest.mark.parametrize("format", ["ICO", "ICNS", "EPS", "PCX", "TGA"])
def test_formats_that_decode_early_or_start_programs_are_not_opened(tmp_path, format):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png", format)
    with pytest.raises(ValueError, match="a.png: (not an image that Pillow can read|.*; convert it to PNG)"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC photo; convert"),
        (b"\n<!doctype HTML><title>404</title>", "page of HTML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "SVG drawing; convert"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"8BPS\0\1", "Photoshop"),
    ],
)
def test_what_is_named_like_an_image_is_called_what_it_is(tmp_path, start, words):
    (tmp_path / "a.png").write_bytes(start.ljust(200, b"\0"))
    with pytest.raises(ValueError, match=f"a.png: an? {words}"):
        open_image(tmp_path / "a.png")


def test_metadata_say_nothing_about_pixels(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    picture.save(tmp_path / "a.png", pnginfo=texts)
    exif = Image.Exif()
    exif[0x0112], exif[0x8827] = 6, 100  # ISO speed, which a camera writes as a signed number
    picture.save(tmp_path / "b.png", exif=exif.tobytes().replace(b"\x27\x88\x03\x00", b"\x27\x88\x06\x00"))
    picture.save(tmp_path / "c.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    exif[0x0112] = 77
    picture.save(tmp_path / "d.png", exif=exif)
    for name in "acd":
        assert (np.asarray(open_image(tmp_path / f"{name}.png")) == np.asarray(picture)).all(), name
    assert open_image(tmp_path / "b.png").size == (8, 12)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_any_damage_is_a_named_error_or_a_picture(tmp_path, format):
    random, file = np.random.default_rng(0), BytesIO()
    Image.fromarray(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(file, format)
    refused = 0
    for _ in range(150):
        data = bytearray(file.getvalue())
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] ^= 1 << random.integers(8)
        (tmp_path / "a.png").write_bytes(data[: random.integers(1, len(data))] if random.random() < 0.3 else data)
        try:
            assert open_image(tmp_path / "a.png").mode == "RGB"
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'a.png'}: ") and "\n" not in str(error)
            refused += 1
    assert refused


def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path):
    ramp = np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None].repeat(400, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.jpg", at_least=90).size == (160, 100)
    assert open_image(tmp_path / "a.jpg", at_least=101).size == (320, 200)
    assert open_image(tmp_path / "a.jpg").size == open_image(tmp_path / "a.png", at_least=90).size == (640, 400)
    small = np.asarray(open_image(tmp_path / "a.jpg", at_least=90), dtype=np.int64)
    whole = np.asarray(open_image(tmp_path / "a.jpg").reduce(4), dtype=np.int64)
    assert abs(small - whole).max() <= 3
