"""Opening images: every format becomes upright 8-bit RGB, every bad file is one line with its name."""

from contextlib import nullcontext
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from common.images import io as image_io
from common.images.io import list_images, open_image


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
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(FileNotFoundError, match="loop.png"):
        open_image(tmp_path / "loop.png")


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


@pytest.mark.parametrize("format", ["ICO", "ICNS", "EPS", "PCX", "TGA"])
def test_formats_that_decode_early_or_start_programs_are_not_opened(tmp_path, format):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png", format)
    with pytest.raises(ValueError, match="a.png: not an image that Pillow can read"):
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


def test_list_images_is_sorted_and_skips_hidden(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt", "deep/c.webp", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a.JPG",
        "b.png",
        "deep/c.webp",
    ]
    with pytest.raises(FileNotFoundError, match="no image below it"):
        list_images(tmp_path / "empty")


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
