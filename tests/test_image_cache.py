"""Image cache: cached pixels equal decoded ones, broken files are counted, changed files are detected."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from common.images.cache import ImageCache


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (40 + number, 60, 3), dtype=np.uint8)
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(made[-1])
    made[2].write_bytes(b"not an image")
    return made


def test_kept_equals_decoded(paths, tmp_path):
    kept = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    fresh = ImageCache(paths, 32, None, quiet=True)
    assert set(kept.skipped) == set(fresh.skipped) == {str(paths[2])} and "2.png" in kept.skipped[str(paths[2])]
    for path in paths[:2] + paths[3:]:
        assert min(kept[path].shape[:2]) == 32
        np.testing.assert_array_equal(kept[path], fresh[path])
    again = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    np.testing.assert_array_equal(again[paths[5]], kept[paths[5]])
    assert again.skipped == kept.skipped and len(list((tmp_path / "cache").glob("*.bin"))) == 1


def test_samples_with_unreadable_images_are_dropped(paths, tmp_path):
    samples = [SimpleNamespace(image=path) for path in paths]
    cache = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    assert cache.readable(samples) == samples[:2] + samples[3:]


def test_changed_file_and_size_make_a_new_store(paths, tmp_path):
    first = ImageCache(paths, 32, tmp_path / "cache", quiet=True)[paths[0]].copy()
    Image.new("RGB", (64, 64), "red").save(paths[0])
    os.utime(paths[0], ns=(1, 1))
    changed = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    assert not np.array_equal(changed[paths[0]], first) and changed[paths[0]][0, 0].tolist() == [255, 0, 0]
    assert ImageCache(paths, 16, tmp_path / "cache", quiet=True)[paths[0]].shape == (16, 16, 3)


def test_small_images_are_not_enlarged(tmp_path):
    Image.new("RGB", (5, 9)).save(tmp_path / "a.png")
    assert ImageCache([tmp_path / "a.png"], 32, None, quiet=True)[tmp_path / "a.png"].shape == (9, 5, 3)


def test_half_written_store_is_made_anew(paths, tmp_path):
    whole = ImageCache(paths, 32, tmp_path / "cache", quiet=True)[paths[1]].copy()
    next((tmp_path / "cache").glob("*.json")).unlink()  # the index is written last: a kill leaves pixels without it
    next((tmp_path / "cache").glob("*.bin")).write_bytes(b"junk")
    np.testing.assert_array_equal(ImageCache(paths, 32, tmp_path / "cache", quiet=True)[paths[1]], whole)
