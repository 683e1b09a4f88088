"""The image index: exact against a plain product, and encoding only what it has to."""

import os
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.vectors.image_index import CACHE, ImageIndex, key_of


class Encoder:
    """Mean colours of the four quarters as a unit vector; remembers how many images it was shown."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        small = [torch.from_numpy(np.array(image.resize((2, 2)), dtype=np.float32)) for image in images]
        return F.normalize(torch.stack(small).flatten(1) - 128, dim=1)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "images" / f"{'ab'[number % 2]}" / f"图 {number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def open_index(folder, key="k", encoder=None, **more):
    encoder = encoder or Encoder()
    index = ImageIndex(folder, encoder, key, batch_size=3, quiet=True, **more)
    assert index.encoded == encoder.seen
    return index


def test_search_is_exact(folder):
    index = open_index(folder)
    queries = F.normalize(torch.randn(7, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    scores, paths = index.search(queries, 5)
    for query, row, found in zip(queries.numpy(), scores, paths):
        cosines = {path: float(vector @ query) for path, vector in zip(index.paths, index.vectors)}
        expected = sorted(cosines, key=lambda path: -cosines[path])[:5]
        assert found == expected
        np.testing.assert_allclose(row, [cosines[path] for path in expected], atol=1e-6)
    scores, paths = index.search(index.vectors[:2], 99)  # more than there are
    assert scores.shape == (2, 20) and paths[0][0] == index.paths[0]
    with pytest.raises(ValueError, match="width 12"):
        index.search(queries[:, :5], 1)


def test_only_new_and_changed_images_are_encoded(folder):
    first = open_index(folder)
    assert first.encoded == 20 and first.paths == sorted(folder.rglob("*.png"))
    again = open_index(folder)
    assert again.encoded == 0 and again.paths == first.paths
    np.testing.assert_array_equal(again.vectors, first.vectors)

    changed, gone = first.paths[3], first.paths[5]
    Image.new("RGB", (4, 4), "red").save(changed)
    gone.unlink()
    Image.new("RGB", (4, 4), "blue").save(folder / "new.jpg")
    third = open_index(folder)
    assert third.encoded == 2 and gone not in third.paths and len(third.paths) == 20
    whole = open_index(folder, key="another")  # the same from nothing
    assert whole.paths == third.paths
    np.testing.assert_array_equal(whole.vectors, third.vectors)

    same_size = third.paths[0]
    data = bytearray(same_size.read_bytes())
    time = same_size.stat().st_mtime_ns
    same_size.write_bytes(bytes(data))
    os.utime(same_size, ns=(time + 1, time + 1))
    assert open_index(folder).encoded == 1


def test_a_moved_folder_keeps_its_vectors(folder, tmp_path):
    first = open_index(folder)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    index = open_index(moved)
    assert index.encoded == 0
    assert [path.relative_to(moved) for path in index.paths] == [path.relative_to(folder) for path in first.paths]
    assert all(path.is_file() for path in index.paths)


def test_models_never_share_vectors(folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    key = key_of(model)
    assert key == key_of(model) != key_of(model, 224)
    model[1].running_mean[0] += 1e-6  # a buffer counts too
    assert key_of(model) != key
    assert open_index(folder, key).encoded == 20
    assert open_index(folder, key_of(model)).encoded == 20
    assert open_index(folder, key).encoded == 0


def test_broken_images_are_named_and_the_rest_is_there(folder):
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (folder / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    index = open_index(folder)
    assert len(index.paths) == 20
    assert {path.name for path in index.skipped} == {"broken.png", "pointer.jpg"}
    assert "git lfs pull" in index.skipped[folder / "pointer.jpg"]
    Image.new("RGB", (4, 4)).save(folder / "broken.png")
    assert open_index(folder).encoded == 1


def test_files_that_do_not_belong_together_are_not_believed(folder):
    first = open_index(folder)
    vectors = folder / CACHE / "k.npy"
    for spoil in (lambda data: data[:-4], lambda data: b"", lambda data: data[:-4] + b"\0\0\0\0"):
        vectors.write_bytes(spoil(vectors.read_bytes()))
        again = open_index(folder)
        assert again.encoded == 20
        np.testing.assert_array_equal(again.vectors, first.vectors)
    vectors.with_suffix(".json").write_text("{")
    assert open_index(folder).encoded == 20


def test_an_interrupted_call_keeps_what_it_has_done(folder):
    class Interrupted(Encoder):
        def __call__(self, images):
            if self.seen == 9:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        open_index(folder, encoder=Interrupted())
    assert open_index(folder).encoded == 11


def test_vectors_can_be_kept_elsewhere(folder, tmp_path):
    assert open_index(folder, cache_dir=tmp_path / "cache").encoded == 20
    assert open_index(folder, cache_dir=tmp_path / "cache").encoded == 0
    assert not (folder / CACHE).exists()


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_index(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image below it"):
        open_index(tmp_path)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 images can be read.*the file is empty"):
        open_index(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="NaN"):
        open_index(tmp_path, encoder=lambda images: torch.full((1, 4), torch.nan))
