"""The vectors of an image folder: exact search, encoding only what is needed, nothing lost and nothing mixed."""

import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.models.pooling import ImageEncoder
from common.vectors.extractor import Extractor, ExtractorOptions
from common.vectors.vector_store import CACHE, VectorStore, index_folder


class Colours(ImageEncoder):
    """Colours of the four quarters as a unit vector; counts the images that it was shown."""

    has_native, image_size = True, 2

    def __init__(self, offset=128.0):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))
        self.seen = 0

    def preprocess(self, image):
        return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1)

    def native_vectors(self, pixels):
        self.seen += len(pixels)
        return F.normalize(pixels.float().flatten(1) - self.offset, dim=1)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "images" / f"{'ab'[number % 2]}" / f"图 {number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def extractor_of(encoder):
    return Extractor(encoder, "colours", ExtractorOptions(batch_size=3, device="cpu"))


def open_store(folder, encoder=None, **more):
    """-> the store, the number of images that were encoded for it"""
    encoder = encoder or Colours()
    return index_folder(folder, extractor_of(encoder), quiet=True, **more), encoder.seen


def test_search_is_exact(folder):
    store, _ = open_store(folder)
    queries = F.normalize(torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    scores, paths = store.search(queries, 5)
    for query, row, matches in zip(queries.numpy(), scores, paths):
        cosines = {path: float(vector @ query) for path, vector in zip(store.paths, store.vectors())}
        expected = sorted(cosines, key=lambda path: -cosines[path])[:5]
        assert matches == expected
        np.testing.assert_allclose(row, [cosines[path] for path in expected], atol=1e-6)
    scores, paths = store.search(store.vectors()[:2], 99)  # more than there are
    assert [len(row) for row in scores] == [20, 20] and paths[0][0] == store.paths[0]
    with pytest.raises(ValueError, match="width 12"):
        store.search(queries[:, :5], 1)


def test_only_new_and_changed_images_are_encoded(folder):
    first, encoded = open_store(folder)
    assert encoded == 20 and first.paths == sorted(folder.rglob("*.png"))
    again, encoded = open_store(folder)
    assert encoded == 0 and again.paths == first.paths
    np.testing.assert_array_equal(again.vectors(), first.vectors())

    changed, gone = first.paths[3], first.paths[5]
    before = changed.read_bytes(), changed.stat().st_mtime_ns
    Image.new("RGB", (4, 4), "red").save(changed)
    gone.unlink()
    Image.new("RGB", (4, 4), "blue").save(folder / "new.jpg")
    third, encoded = open_store(folder)
    assert encoded == 2 and gone not in third.paths and len(third.paths) == 20
    whole, _ = open_store(folder, cache_dir=folder / ".another")  # the same from nothing
    assert whole.paths == third.paths
    np.testing.assert_array_equal(whole.vectors(), third.vectors())

    changed.write_bytes(before[0])
    os.utime(changed, ns=(before[1], before[1]))
    restored, encoded = open_store(folder)  # a file that is again what it was
    assert encoded == 0 and restored.paths == third.paths
    np.testing.assert_array_equal(restored.vectors()[restored.paths.index(changed)], first.vectors()[3])

    same_size = third.paths[0]
    time = same_size.stat().st_mtime_ns
    os.utime(same_size, ns=(time + 1, time + 1))
    assert open_store(folder)[1] == 1


def test_a_moved_folder_keeps_its_vectors(folder, tmp_path):
    first, _ = open_store(folder)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    store, encoded = open_store(moved)
    assert encoded == 0
    assert [path.relative_to(moved) for path in store.paths] == [path.relative_to(folder) for path in first.paths]
    assert all(path.is_file() for path in store.paths)


def test_models_never_share_vectors(folder):
    model, other = Colours(), Colours(128.001)
    other.register_buffer("scale", torch.ones(1), persistent=False)
    buffer = extractor_of(other).metadata["key"]
    other.scale[0] += 1e-6  # a buffer counts too
    assert len({extractor_of(model).metadata["key"], buffer, extractor_of(other).metadata["key"]}) == 3
    assert open_store(folder, model)[1] == 20
    assert open_store(folder, other)[1] == 20
    assert open_store(folder, Colours())[1] == 0
    store = VectorStore(next((folder / CACHE).iterdir()))
    with pytest.raises(ValueError, match="flip"):
        same = next(
            encoder for encoder in (model, other) if extractor_of(encoder).metadata["key"] == store.metadata["key"]
        )
        store.update(Extractor(same, "colours", ExtractorOptions(flip=True)))


def test_broken_images_are_named_and_the_rest_is_there(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (folder / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    store, _ = open_store(folder)
    assert len(store) == 20
    assert {path.name for path in store.skipped} == {"broken.png", "pointer.jpg"}
    assert "git lfs pull" in store.skipped[folder / "pointer.jpg"]
    Image.new("RGB", (4, 4)).save(folder / "broken.png")
    assert open_store(folder)[1] == 1


def test_damaged_files_are_replaced(folder):
    first, _ = open_store(folder)
    expected = first.vectors()
    for damage in (lambda data: data[:-4], lambda data: b"", lambda data: data[:-4] + b"\0\0\0\0"):
        (file,) = first.folder.glob("shard-*.npy")
        file.write_bytes(damage(file.read_bytes()))
        again, encoded = open_store(folder)
        assert encoded == 20
        np.testing.assert_array_equal(again.vectors(), expected)
    (file,) = first.folder.glob("shard-*.json")
    file.write_text("{")
    with pytest.raises(ValueError, match=f"{file.stem}.npy: damaged"):
        VectorStore(first.folder)
    assert open_store(folder)[1] == 20


def test_an_interrupted_call_keeps_what_it_has_done(folder):
    class Interrupted(Colours):
        def native_vectors(self, pixels):
            if self.seen == 9:
                raise KeyboardInterrupt
            return super().native_vectors(pixels)

    with pytest.raises(KeyboardInterrupt):
        open_store(folder, Interrupted())
    assert open_store(folder)[1] == 11


def test_a_killed_call_keeps_what_it_saved(folder, monkeypatch):
    monkeypatch.setattr("common.vectors.vector_store.SAVE_SECONDS", 0)
    store, encoded = open_store(folder)
    numbers = sorted(store.folder.glob("shard-*.json"))
    assert encoded == 20 and len(numbers) == 20
    for file in numbers[8:]:
        file.unlink()
    numbers[8].with_suffix(".npy").write_bytes(b"written, but not named yet")
    assert open_store(folder)[1] == 12


def test_vectors_can_be_kept_elsewhere(folder, tmp_path):
    assert open_store(folder, cache_dir=tmp_path / "cache")[1] == 20
    assert open_store(folder, cache_dir=tmp_path / "cache")[1] == 0
    assert not (folder / CACHE).exists()


def test_many_small_shards_are_merged(folder, monkeypatch):
    monkeypatch.setattr("common.vectors.vector_store.MAX_SMALL_SHARDS", 2)
    for number in range(4):
        Image.new("RGB", (4, 4), (90 * number, 0, 0)).save(folder / f"{number}.png")
        store, _ = open_store(folder)
    assert len(store) == 24 and len(store.shards) < 4 and open_store(folder)[1] == 0


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image below it"):
        open_store(tmp_path)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 images can be read.*the file is empty"):
        open_store(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="NaN"):
        open_store(tmp_path, Colours(torch.nan))
