"""Image cache: cached pixels equal decoded ones in every state of the cache; broken images are named."""

import os

import numpy as np
import pytest
from PIL import Image

from common.images.cache import ImageCache
from common.samples.invented import read_bank


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (40 + number, 60, 3), dtype=np.uint8)
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(made[-1])
    return made


def test_kept_equals_decoded(paths, tmp_path):
    paths[2].write_bytes(b"not an image")
    kept, fresh = ImageCache(32, tmp_path / "cache", quiet=True), ImageCache(32)
    assert kept.check(paths) == fresh.check(paths) and "2.png" in kept.check(paths)[str(paths[2])]
    for path in paths[:2] + paths[3:]:
        assert min(kept[path].shape[:2]) == 32
        np.testing.assert_array_equal(kept[path], fresh[path])
    with pytest.raises(ValueError, match="2.png"):
        kept[paths[2]]


def test_a_changed_file_is_decoded_again(paths, tmp_path):
    images = ImageCache(32, tmp_path / "cache")
    first = images[paths[0]]
    Image.new("RGB", (60, 40), "red").save(paths[0])
    os.utime(paths[0], (1, 1))
    assert not np.array_equal(images[paths[0]], first) and images[paths[0]][0, 0].tolist() == [255, 0, 0]
    assert ImageCache(16, tmp_path / "cache")[paths[0]].shape == (16, 24, 3)


def test_small_images_are_not_enlarged(tmp_path):
    Image.new("RGB", (5, 9)).save(tmp_path / "a.png")
    assert ImageCache(32)[tmp_path / "a.png"].shape == (9, 5, 3)


def test_a_damaged_bank_is_drawn_again(tmp_path, capsys):
    bank = np.array(read_bank(1, 2, 16, tmp_path))
    next(tmp_path.glob("*.bin")).write_bytes(b"")
    assert (read_bank(1, 2, 16, tmp_path) == bank).all() and "damaged" in capsys.readouterr().err
