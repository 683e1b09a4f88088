"""Image cache: cached pixels equal decoded ones, broken files are counted, changed files are detected."""

import os
import pickle
from types import SimpleNamespace

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


@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_a_damaged_cache_is_made_again(paths, tmp_path, capsys, suffix, damage):
    whole = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    pixels, skipped = whole[paths[5]].copy(), whole.skipped
    (file,) = (tmp_path / "cache").glob(f"*{suffix}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()  # the map of the first stays as it is
    if damage != "gone":
        file.write_bytes(data if damage == "bit" else data[: len(data) // 2])
    again = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    np.testing.assert_array_equal(again[paths[5]], pixels)
    expected = "" if (suffix, damage) == (".json", "gone") else "the cache is damaged; it is made again"
    assert again.skipped == skipped and expected in capsys.readouterr().err
    ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    assert not capsys.readouterr().err


def test_a_cache_is_passed_to_other_processes_by_name(paths, tmp_path):
    cache = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    sent = pickle.dumps(cache)
    assert len(sent) < 3000 < cache.pixels.size
    np.testing.assert_array_equal(pickle.loads(sent)[paths[1]], cache[paths[1]])
    part = pickle.loads(pickle.dumps(cache.pixels[5:9]))  # a part is its values
    assert not isinstance(part, np.memmap) and (part == cache.pixels[5:9]).all()
    bank = read_bank(1, 2, 16, tmp_path / "cache")
    assert len(pickle.dumps(bank)) < 500 and (pickle.loads(pickle.dumps(bank)) == bank).all()


def test_a_damaged_bank_is_drawn_again(tmp_path, capsys):
    bank = np.array(read_bank(1, 2, 16, tmp_path))
    next(tmp_path.glob("*.bin")).write_bytes(b"")
    assert (read_bank(1, 2, 16, tmp_path) == bank).all() and "damaged" in capsys.readouterr().err


def test_files_that_are_gone_are_skipped_by_name(paths, tmp_path):
    paths[0].unlink()
    cache = ImageCache(paths, 32, tmp_path / "cache", quiet=True)
    assert "no such file" in cache.skipped[str(paths[0])] and cache[paths[1]].shape[1] > 0
